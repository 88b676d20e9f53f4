"""Structured reports, read back by highdicom."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from pydicom.uid import BasicTextSRStorage, ComprehensiveSRStorage

from clinbundles.scripts.deploy.headers import source_header
from clinbundles.scripts.deploy.inference import Bundle, Prediction, opened
from clinbundles.scripts.deploy.reports import class_group, report, segment_groups, text_report

Maker = Callable[..., pydicom.Dataset]


def test_a_report_of_a_class_has_every_probability_and_the_image(
    instance: Maker, as_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle, source = as_bundle("normal", "covid19", type="probabilities"), source_header(instance())
    probabilities = np.array([0.123456789, 0.876543211], np.float32)
    group = class_group(bundle, Prediction(Path("x"), probabilities=probabilities, warning="hardly a chest"), source)
    made = report(bundle, [group], [source])
    assert made.SOPClassUID == ComprehensiveSRStorage
    made.save_as(tmp_path / "sr.dcm")
    (read,) = highdicom.sr.srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()
    assert [float(each.value) for each in read.get_measurements()] == pytest.approx(probabilities.tolist(), abs=1e-8)
    assert read.finding_type.value == "882784691000119100"
    assert "hardly a chest" in str(made)
    (evidence,) = made.CurrentRequestedProcedureEvidenceSequence
    assert evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.1"


def test_areas_are_in_square_millimetres_where_the_image_tells_and_in_pixels_elsewhere(
    instance: Maker, as_bundle: Callable[..., Bundle]
) -> None:
    frames = np.zeros((1, 40, 60), np.uint16)
    frames[0, :2, :5], frames[0, 10:12, :3] = 1, 1
    bundle = as_bundle("polyp")
    for fields, area, unit in (({"PixelSpacing": [2.0, 0.5]}, 16.0, "mm2"), ({}, 16.0, "{pixels}"),
                               ({"PixelSpacing": [0, 0]}, 16.0, "{pixels}"),
                               ({"PixelSpacing": [3.0, 0.5]}, 24.0, "mm2")):  # fmt: skip
        (group,) = segment_groups(bundle, frames, [source_header(instance(**fields))])
        size, count = group.values
        assert (size.number, size.unit.value) == (area, unit)
        assert count.number == 2


def test_a_volume_is_in_cubic_millimetres_by_the_places_of_its_slices(
    instance: Maker, as_bundle: Callable[..., Bundle]
) -> None:
    slices = [
        source_header(
            instance(
                SOPInstanceUID=f"1.2.3.{k}",
                ImagePositionPatient=[0, 0, 4.0 * k],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                PixelSpacing=[2.0, 0.5],
            )
        )
        for k in (3, 1, 2)
    ]
    frames = np.zeros((3, 40, 60), np.uint16)
    frames[0, :1, :5] = frames[2, :1, :5] = 1  # neighbours, out of order in the file
    frames[1, 30:31, :1] = 1
    (group,) = segment_groups(as_bundle("background", "body"), frames, slices)
    size, count = group.values
    assert (size.what, size.number, size.unit) == (codes.SCT.Volume, 44.0, codes.UCUM.CubicMillimeter)
    assert count.number == 2


def test_a_text_report_says_the_same_in_sentences(instance: Maker, as_bundle: Callable[..., Bundle]) -> None:
    bundle, source = as_bundle("normal", "covid19", type="probabilities"), source_header(instance())
    group = class_group(bundle, Prediction(Path("x"), probabilities=np.array([0.75, 0.25])), source)
    made = text_report(bundle, [group], [source])
    assert made.SOPClassUID == made.file_meta.MediaStorageSOPClassUID == BasicTextSRStorage
    texts = [item.TextValue for item in made.ContentSequence]
    assert texts[0].startswith("Normal: Probability of Normal 0.75, Probability of Pneumonia")
    assert "not for diagnosis" in texts[1]


def test_both_reports_say_which_weights_and_what_they_are_not_for(
    instance: Maker, as_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    source = source_header(instance())
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"weights")
    note = f"Weights: sha256 {hashlib.sha256(b'weights').hexdigest()}: "
    with opened("covid_xray_transfer") as shipped:
        card = json.loads((shipped.folder / "models" / "model.json").read_text())
        own = shipped.with_options({"ckpt_path": str(weights)})
    for bundle, sentence in (
        (shipped, f"Weights: sha256 {card['weights_sha256']}: {card['warning']}"),
        (own, f"{note}no card says what these weights are for."),
    ):
        group = class_group(bundle, Prediction(Path("x"), probabilities=np.array([0.5, 0.25, 0.25])), source)
        made = report(bundle, [group], [source])
        assert sentence in [element.value for element in made.iterall() if element.keyword == "TextValue"]
        assert text_report(bundle, [group], [source]).ContentSequence[-1].TextValue.endswith(sentence)
