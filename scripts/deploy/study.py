"""From the chosen images of a study to DICOM results in a folder, all of them or none.

The SDK of MONAI Deploy is not needed here.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from clinbundles.engines.outputs.files import replacing
from clinbundles.transforms.readers.decoding import is_dicom
from clinbundles.transforms.readers.dicom import silent_pydicom
from clinbundles.transforms.readers.pydicom_api import encoding_of

from . import reports, results
from .headers import check_headers, source_header
from .inference import CLASSES, INSTANCES, Bundle, Prediction, infer, run_inference
from .series import label_of, rule_of

STRUCTURED, TEXT = "structured", "text"
SERIES = "series"  # folder of the links
REPORTS = (STRUCTURED, TEXT)


@dataclass(frozen=True)
class Settings:
    """What a person asks for.

    Attributes:
        place: folder of the study.
        output: new folder for the results.
        series: SeriesInstanceUID, where several fit.
        report: structured (Comprehensive SR, TID 1500) or text (Basic Text SR).
        deidentify: leave out of the results who the patient is.
        uid_key: with deidentify, what UIDs are replaced by; None keeps them.
        options: values of the bundle's inference.json.
    """

    place: Path
    output: Path
    series: str | None = None
    report: str = STRUCTURED
    deidentify: bool = False
    uid_key: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def header_of(self, image: Dataset) -> Dataset:
        """Give what the results take over from an image."""
        with silent_pydicom():
            return source_header(image, deidentify=self.deidentify, uid_key=self.uid_key)

    @property
    def report_kind(self) -> str:
        """Kind of the report among the results."""
        return results.REPORT if self.report == STRUCTURED else results.TEXT_REPORT


def make_results(bundle: Bundle, images: Sequence[Dataset], settings: Settings) -> tuple[list[Path], float]:
    """Apply a bundle to images and write its results to the folder ``settings.output``, which appears at once.

    Args:
        bundle: the bundle.
        images: of one series, each with its ``filename``.
        settings: what a person asks for.

    Returns:
        the files, and the seconds that the bundle's evaluator ran.

    Raises:
        ValueError: an image could not be read, or a mask does not lie on it.
    """
    with silent_pydicom():
        headers = [settings.header_of(image) for image in images]
        check_headers(headers, rule_of(bundle.metadata), str(settings.place))
    with linked(images, as_volume=rule_of(bundle.metadata).as_volume) as (sources, work):
        try:
            predictions, seconds = infer(bundle, sources, work, **settings.options)
        except ValueError as error:
            raise ValueError(_without_links(str(error), images, work.parent, settings.place)) from error
        with _silent_highdicom():
            made = list(_results(bundle, predictions, headers, settings))
        with replacing(settings.output) as partial:
            partial.mkdir()
            for name, dataset in made:
                dataset.save_as(partial / f"{name}.dcm", enforce_file_format=True)
    return [settings.output / f"{name}.dcm" for name, _ in made], seconds


def _without_links(text: str, images: Sequence[Dataset], scratch: Path, place: Path) -> str:
    """Name in a message the images instead of the links to them."""
    for position, image in enumerate(images, start=1):
        for link in (f"{scratch / SERIES / _link_name(position)}", _link_name(position)):
            text = text.replace(link, label_of(image, position))
    return text.replace(f"{scratch / SERIES}", str(place)).replace(str(scratch), str(place))


def _results(
    bundle: Bundle, predictions: Sequence[Prediction], headers: Sequence[Dataset], settings: Settings
) -> Iterator[tuple[str, Dataset]]:
    """Make the results: one report of everything, and the other kinds an image or volume each."""
    hide = settings.deidentify
    groups: list[reports.Group] = []
    by_prediction = [list(headers)] if len(predictions) == 1 else [[header] for header in headers]
    for number, (prediction, sources) in enumerate(zip(predictions, by_prediction, strict=True), start=1):
        suffix = f"_{number}" if len(predictions) > 1 else ""
        if prediction.overlay is not None and (not hide or sources[0].get("BurnedInAnnotation") == "NO"):
            picture = results.overlay(bundle, sources, prediction.overlay, number=number, deidentify=hide)
            yield f"{results.OVERLAY}{suffix}", picture
        if bundle.output_kind == CLASSES:
            groups.append(reports.class_group(bundle, prediction, sources[0]))
            continue
        labels = np.asarray(prediction.labels)
        frames = results.as_frames(labels, prediction.affine, sources)
        groups += reports.segment_groups(bundle, frames, sources)
        if bundle.output_kind == INSTANCES:
            cells = results.cell_annotations(bundle, sources, labels, prediction.scores, number=number, deidentify=hide)
            if cells is not None:
                yield f"{results.ANNOTATIONS}{suffix}", cells
            frames = (frames > 0).astype(np.uint16)
        yield (
            f"{results.SEGMENTATION}{suffix}",
            results.segmentation(bundle, sources, frames, number=number, deidentify=hide),
        )
    if settings.report == STRUCTURED:
        yield results.REPORT, reports.report(bundle, groups, headers, deidentify=hide)
    else:
        yield results.TEXT_REPORT, reports.text_report(bundle, groups, headers, deidentify=hide)


def run_pictures(bundle: Bundle, settings: Settings) -> None:
    """Apply a bundle to pictures, and write what it writes for them to the folder ``settings.output``, which is new.

    Raises:
        ValueError: none of them could be read, or the folder is there already.
    """
    if settings.output.exists() and any(settings.output.iterdir()):
        raise ValueError(f"{settings.output}: is there already, with other files; give a new folder.")
    with replacing(settings.output) as partial:
        partial.mkdir()
        run_inference(bundle, settings.place, partial, **settings.options)


@contextmanager
def _silent_highdicom() -> Iterator[None]:
    """Keep highdicom from warning: its messages quote the names of patients."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def linked(images: Sequence[Dataset], *, as_volume: bool) -> Iterator[tuple[list[Path], Path]]:
    """Link the files of images into a folder, by names that tell nothing of a patient.

    One without preamble is written with it, for the SDK of MONAI Deploy passes over such files.

    Yields:
        the links, or of a volume their folder, and a folder for what is written meanwhile.
    """
    with TemporaryDirectory() as scratch:
        folder, work = Path(scratch) / SERIES, Path(scratch) / "work"
        folder.mkdir()
        work.mkdir()
        links = []
        for number, image in enumerate(images, start=1):
            link = folder / _link_name(number)
            source = Path(str(image.filename)).resolve()
            if is_dicom(source):
                _link(source, link)
            else:
                _add_preamble(source, link)
            links.append(link)
        yield ([folder] if as_volume else links), work


def _link_name(position: int) -> str:
    return f"{position:04}.dcm"


def _link(source: Path, link: Path) -> None:
    try:
        link.symlink_to(source)
    except OSError:
        shutil.copy(source, link)


def _add_preamble(source: Path, target: Path) -> None:
    with silent_pydicom():
        dataset = dcmread(source, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, little = encoding_of(dataset)
            explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(target, enforce_file_format=True)
