"""A packed bundle as a MONAI Deploy application, on a folder or on a study of a PACS.

    clinbundles deploy dist/covid_xray_transfer_v0.1.0.zip /data/study /data/results
    clinbundles deploy dist/gaze_polyp_segmentation_v0.1.0.zip 1.2.826.0.1.1 /data/results --pacs http://127.0.0.1:8042/dicom-web

DICOM gives DICOM: a segmentation (SEG) with coded segments, a structured report (Comprehensive SR by TID 1500) of
classes and measurements, the bundle's picture as a secondary capture, and of cells their outlines as bulk annotations.
Each refers to its source images, and has a UID that rests on the weights and on these: a study done twice has no second
result. Pictures and NIfTI give what the bundle's own inference writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydicom import Dataset, dcmread

from clinbundles.scripts.bundle import check_options
from clinbundles.scripts.predict.studies import Study, as_folder
from clinbundles.transforms.readers.decoding import is_dicom
from clinbundles.transforms.readers.folder import files_below

from .headers import uid_of
from .inference import Bundle, opened
from .results import REPORT, TEXT_REPORT
from .series import choose_series, read_headers, rule_of
from .study import REPORTS, STRUCTURED, Settings, run_pictures


def deploy(
    bundle: str,
    input: str,
    output: str,
    *,
    series: str | None = None,
    report: str = "structured",
    deidentify: bool = False,
    **options: Any,
) -> None:
    """Apply a bundle to a study as a MONAI Deploy application: DICOM in, DICOM segmentations and reports out.

    Args:
        bundle: a zip of clinbundles pack, a folder, or the name of a bundle.
        input: folder of DICOM files, or of pictures (PNG, TIFF, JPEG, NIfTI), or one such file.
        output: new folder for the results; it appears when all of them are there.
        series: SeriesInstanceUID, where several series of the study fit.
        report: structured, a Comprehensive SR by TID 1500; or text, a Basic Text SR.
        deidentify: leave out of the results who the patient is, and when and where the study was.
        options: values of the bundle's inference.json.
    """
    if report not in REPORTS:
        raise ValueError(f"--report is {report!r}, expected {' or '.join(REPORTS)}.")
    with opened(bundle) as opened_bundle, _folder_of(input) as place:
        check_options(opened_bundle.folder, ["inference"], options)
        settings = Settings(place, Path(output), series, report, deidentify, options)
        _check_output(settings.output)
        print(_sentence(opened_bundle, settings))


def _sentence(bundle: Bundle, settings: Settings) -> str:
    if not any(is_dicom(path) for path in files_below(settings.place)):
        run_pictures(bundle, settings)
        return f"no DICOM in, so none out: what {bundle.name} writes for pictures: {settings.output}"
    images = choose_series(
        read_headers(settings.place), rule_of(bundle.metadata), str(settings.place), series=settings.series
    )
    if settings.output.is_dir() and made_before(bundle, images, settings):
        return f"these results of {bundle.name} for this study are there already: {settings.output}"
    files, seconds = _run_application(bundle, settings)
    return f"{len(files)} DICOM files ({', '.join(path.stem for path in files)}) in {seconds:.1f} s: {settings.output}"


def _run_application(bundle: Bundle, settings: Settings) -> tuple[list[Path], float]:
    try:
        from .application import run_application
    except ImportError as error:
        raise ValueError(
            f"clinbundles deploy needs the extra 'deploy': pip install 'clinbundles[deploy]' ({error})."
        ) from error
    return run_application(bundle, settings)


def made_before(bundle: Bundle, images: list[Dataset], settings: Settings) -> bool:
    """Tell whether a folder holds the results of the same bundle for the same images.

    Raises:
        ValueError: it holds something else.
    """
    kind = REPORT if settings.report == STRUCTURED else TEXT_REPORT
    file = settings.output / f"{kind}.dcm"
    if not any(settings.output.iterdir()):
        return False
    if file.is_file() and dcmread(file, stop_before_pixels=True).SOPInstanceUID == uid_of(bundle, images, kind):
        return True
    raise ValueError(f"{settings.output}: is there already, with other files; give a new folder.")


def _check_output(output: Path) -> None:
    if output.is_file() or not output.resolve().parent.is_dir():
        raise ValueError(f"{output}: expected a new folder in a folder that exists.")


@contextmanager
def _folder_of(place: str) -> Iterator[Path]:
    """Give a folder as it is; of a file, a folder with a link to it."""
    with TemporaryDirectory() as scratch, as_folder(Study("input", Path(place)), Path(scratch) / "in") as folder:
        yield folder
