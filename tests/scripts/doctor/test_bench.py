from pathlib import Path

import pytest

from clinbundles.scripts.doctor.bench import advice, time_runtimes

ROOT = Path(__file__).parents[3]


def test_the_faster_runtime_is_advised_and_a_draw_leaves_eager() -> None:
    lines = list(advice("a.zip", {"eager": [0.02, 0.04, 0.02], "onnx": [0.01, 0.02, 0.01]}))
    assert lines[:2] == ["eager: 20.0 ms an image, 1.00 of eager", "onnx: 10.0 ms an image, 0.50 of eager"]
    assert lines[2].startswith("use onnx")
    assert lines[2].endswith("clinbundles predict a.zip INPUTS OUTPUT --config inference_onnx")
    assert list(advice("a.zip", {"eager": [0.02], "onnx": [0.0199]}))[2].startswith("use eager")


def test_a_bundle_of_one_runtime_is_told_how_to_get_another() -> None:
    with pytest.raises(ValueError, match="has one runtime alone; clinbundles pack ct_datasetgan --runtime onnx"):
        time_runtimes(ROOT / "bundles" / "ct_datasetgan")
