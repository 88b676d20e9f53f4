"""A packed bundle as a MONAI Deploy application, on a folder or on a study of a PACS.

    clinbundles deploy dist/covid_xray_transfer_v0.1.0.zip /data/study /data/results
    clinbundles deploy dist/gaze_polyp_segmentation_v0.1.0.zip 1.2.826.0.1.1 /data/results --pacs http://127.0.0.1:8042/dicom-web

DICOM gives DICOM: a segmentation (SEG) with coded segments, a structured report (Comprehensive SR by TID 1500) of
classes and measurements, the bundle's picture (overlay, or Grad-CAM of a class, which ``--overlays false`` leaves out)
as a secondary capture, and of cells their outlines as bulk annotations.
Each refers to its source images, and has a UID that rests on the weights, configs and code of the
bundle and on these: a study done twice has no second
result. Pictures and NIfTI give what the bundle's own inference writes.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydicom import Dataset, dcmread

from clinbundles.scripts.bundle import check_options
from clinbundles.scripts.predict.studies import Study, as_folder
from clinbundles.transforms.readers.ct_series import is_slice_file
from clinbundles.transforms.readers.folder import files_below

from .headers import uid_of
from .inference import Bundle, opened
from .series import choose_series, foreign_modalities, read_headers, rule_of
from .study import REPORTS, STRUCTURED, Settings, linked, run_pictures

UID_KEY = "CLINBUNDLES_UID_KEY"


def deploy(
    bundle: str,
    input: str,
    output: str,
    *,
    series: str | None = None,
    report: str = "structured",
    deidentify: bool = False,
    keep_uids: bool = False,
    pacs: str | None = None,
    **options: Any,
) -> None:
    """Apply a bundle to a study as a MONAI Deploy application, which writes DICOM segmentations and reports.

    Args:
        bundle: a zip of clinbundles pack, a folder, or the name of a bundle.
        input: folder of DICOM files, or of pictures (PNG, TIFF, JPEG, NIfTI), or one such file; with pacs, the
            StudyInstanceUID.
        output: new folder for the results; it appears when all of them are there.
        series: SeriesInstanceUID, where several series of the study fit.
        report: structured, a Comprehensive SR by TID 1500; or text, a Basic Text SR.
        deidentify: leave out of the results the patient's name and numbers, dates, times and the institution, and
            replace all UIDs, which lead back to the study. The same UID becomes the same one in all results of a run;
            in other runs too with the same secret in the variable CLINBUNDLES_UID_KEY.
        keep_uids: with deidentify, keep the UIDs, so that the results can be laid on their images.
        pacs: address of a server of DICOMweb that has the study, and gets the results; the variable
            CLINBUNDLES_PACS_TOKEN is its token. What it has already is not made or sent again.
        options: values of the bundle's inference.json.
    """
    if report not in REPORTS:
        raise ValueError(f"--report is {report!r}, expected {' or '.join(REPORTS)}.")
    if pacs and deidentify:
        raise ValueError("--deidentify and --pacs: a result without a patient would be lost in a PACS.")
    if keep_uids and not deidentify:
        raise ValueError("--keep_uids is for --deidentify alone: without it all UIDs are kept.")
    target = Path(output)
    if target.is_file() or not target.resolve().parent.is_dir():
        raise ValueError(f"{output}: expected a new folder in a folder that exists.")
    with opened(bundle) as opened_bundle:
        check_options(opened_bundle.folder, ["inference"], options)
        if options or deidentify:  # other results, which get other UIDs
            opened_bundle = opened_bundle.with_options(options, deidentify)
        uid_key = os.environ.get(UID_KEY) or secrets.token_hex() if deidentify and not keep_uids else None
        settings = Settings(Path(input), target, series, report, deidentify, uid_key, options)
        if pacs:
            print(_on_pacs(opened_bundle, settings, study=input, url=pacs))
        else:
            with _folder_of(input) as place:
                print(_on_folder(opened_bundle, replace(settings, place=place)))


def _on_folder(bundle: Bundle, settings: Settings) -> str:
    if not any(is_slice_file(path) for path in files_below(settings.place)):
        _check_pictures(settings)
        run_pictures(bundle, settings)
        return f"no DICOM in, so none out: what {bundle.name} writes for pictures: {settings.output}"
    images = choose_series(
        read_headers(settings.place), rule_of(bundle.metadata), str(settings.place), series=settings.series
    )
    if made_before(bundle, images, settings):
        return f"these results of {bundle.name} for this study are there already: {settings.output}"
    with linked(images, as_volume=True) as ((folder,), _):  # no file that the SDK would pass over, and none besides
        files, seconds = _run_application(bundle, settings, folder)
    if note := foreign_modalities(bundle.metadata, images):
        print(f"{note}: {settings.place}")
    return f"{len(files)} DICOM files ({', '.join(path.stem for path in files)}) in {seconds:.1f} s: {settings.output}"


def _check_pictures(settings: Settings) -> None:
    """Refuse options that mean nothing for pictures, whose results are called as they are."""
    given = {
        "--series": settings.series is not None,
        "--report": settings.report != STRUCTURED,
        "--deidentify": settings.deidentify,
    }
    if names := [name for name, is_given in given.items() if is_given]:
        raise ValueError(
            f"{settings.place}: holds no DICOM file, and {' and '.join(names)} is for DICOM alone; leave it out, and "
            "give pictures names that tell nothing of a patient."
        )


def _on_pacs(bundle: Bundle, settings: Settings, *, study: str, url: str) -> str:
    from .pacs import Pacs  # only needed here

    server = Pacs(url)
    rule = rule_of(bundle.metadata)
    images = choose_series(server.read_study(study), rule, f"study {study}", series=settings.series)
    # It is sent last: where it is, everything else is, too.
    if server.has(study, uid_of(bundle, images, settings.report_kind)):
        return f"{url} has the results of {bundle.name} for this study already."
    with TemporaryDirectory() as scratch:
        server.fetch(images, Path(scratch))
        sentence = _on_folder(bundle, replace(settings, place=Path(scratch)))
    files = sorted(settings.output.glob("*.dcm"), key=lambda file: (file.stem == settings.report_kind, file.name))
    return f"{sentence}; sent to {url}: {server.store(files)}"


def _run_application(bundle: Bundle, settings: Settings, folder: Path) -> tuple[list[Path], float]:
    try:
        from .application import run_application
    except ImportError as error:
        raise ValueError(
            f"clinbundles deploy needs the extra 'deploy': pip install 'clinbundles[deploy]' ({error})."
        ) from error
    return run_application(bundle, settings, folder)


def made_before(bundle: Bundle, images: list[Dataset], settings: Settings) -> bool:
    """Tell whether a folder holds the results of the same bundle for the same images.

    Raises:
        ValueError: it holds something else.
    """
    if not settings.output.is_dir() or not any(settings.output.iterdir()):
        return False
    file = settings.output / f"{settings.report_kind}.dcm"
    uid = uid_of(bundle, map(settings.header_of, images), settings.report_kind)
    if file.is_file() and dcmread(file, stop_before_pixels=True).SOPInstanceUID == uid:
        return True
    raise ValueError(f"{settings.output}: is there already, with other files; give a new folder.")


@contextmanager
def _folder_of(place: str) -> Iterator[Path]:
    """Give a folder as it is; of a file, a folder with a link to it."""
    with TemporaryDirectory() as scratch, as_folder(Study("input", Path(place)), Path(scratch) / "in") as folder:
        yield folder
