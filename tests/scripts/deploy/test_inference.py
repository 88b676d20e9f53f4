"""A bundle's own inference on files, as the application uses it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clinbundles.scripts.bundle import ROOT
from clinbundles.scripts.deploy.inference import Bundle, infer, opened, run_inference

XRAYS = ROOT / "bundles" / "covid_xray_transfer"


def test_a_folder_and_its_results_are_those_of_a_run(tmp_path: Path) -> None:
    with opened(str(XRAYS)) as bundle:
        assert (bundle.name, bundle.version, bundle.output_kind) == ("covid_xray_transfer", "0.1.0", "classes")
        files = [XRAYS / "samples" / "images" / name for name in ("IM-normal.dcm", "48c4542c.png")]
        (first, second), seconds = infer(bundle, files, tmp_path)
        run_inference(bundle, XRAYS / "samples" / "images", tmp_path / "own")
    rows = (tmp_path / "own" / "per_image.csv").read_text().splitlines()
    own = {row.split(",")[0]: [float(each) for each in row.split(",")[2:5]] for row in rows[1:]}
    assert first.probabilities.tolist() == pytest.approx(own["IM-normal.dcm"], abs=1e-6)
    assert second.probabilities.tolist() == pytest.approx(own["48c4542c.png"], abs=1e-6)
    assert seconds > 0
    assert np.argmax(first.probabilities) != np.argmax(second.probabilities)


def test_what_the_reader_refuses_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"no picture")
    with opened(str(XRAYS)) as bundle, pytest.raises(ValueError, match=r"image\.png"):
        infer(bundle, [tmp_path / "image.png"], tmp_path)


def test_what_is_no_bundle_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no zip")
    (tmp_path / "configs").mkdir()
    for place, error, sentence in (
        (tmp_path / "b.zip", FileNotFoundError, "no such file"),
        (tmp_path / "a.zip", ValueError, "is no whole zip"),
        (tmp_path, FileNotFoundError, "has no models/model.pt"),
    ):
        with pytest.raises(error, match=sentence), opened(str(place)):
            pass


def test_the_kinds_of_outputs_and_the_values_of_label_maps(as_bundle: Callable[..., Bundle]) -> None:
    assert as_bundle("polyp").labels == {1: "polyp"}
    assert as_bundle("background", "body", "lung").labels == {1: "body", 2: "lung"}
    classes = as_bundle("normal", "ill", type="probabilities")
    assert (classes.output_kind, classes.labels) == ("classes", {0: "normal", 1: "ill"})
    assert as_bundle("number", format="instances").labels == {1: "cell"}
