import json
from pathlib import Path

import pytest
import torch

from clinbundles.scripts.doctor.bench import advice, time_runtimes

ROOT = Path(__file__).parents[3]


def test_the_faster_runtime_is_advised_and_a_draw_leaves_eager() -> None:
    lines = list(advice("a.zip", {"eager": [0.02, 0.04, 0.02], "onnx": [0.01, 0.02, 0.01]}))
    medians = "(medians over the rounds, of the times and of their ratios)"
    assert lines[:2] == [
        "eager: 20.0 ms an image, 1.00 of eager",
        f"onnx: 10.0 ms an image, 0.50 of eager {medians}",
    ]
    assert lines[2].startswith("use onnx")
    assert lines[2].endswith("clinbundles predict a.zip INPUTS OUTPUT --config inference_onnx")
    assert list(advice("a.zip", {"eager": [0.02], "onnx": [0.0199]}))[2].startswith("use eager")


@pytest.mark.parametrize(("threads", "words"), [(1, "with 1 thread on"), (2, "with 2 threads on")])
def test_the_threads_are_counted_in_words(threads: int, words: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert words in list(advice("a.zip", {"eager": [0.02]}))[1]
    finally:
        torch.set_num_threads(before)


def test_a_bundle_of_one_runtime_is_told_how_to_get_another() -> None:
    with pytest.raises(ValueError, match="has one runtime alone; clinbundles pack ct_datasetgan --runtime onnx"):
        time_runtimes(ROOT / "bundles" / "ct_datasetgan")


def test_a_zip_of_ones_own_weights_is_told_their_options_and_a_pure_one_that_there_is_no_other(tmp_path: Path) -> None:
    for name in ("metadata", "inference"):
        path = tmp_path / "polyps" / "configs" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"version": "0.1.0+mine"}))
    with pytest.raises(
        ValueError, match=r"pack polyps --ckpt_path FILE --version 0\.1\.0\+mine\.onnx --runtime onnx adds"
    ):
        time_runtimes(tmp_path / "polyps")
    (tmp_path / "polyps" / "models").mkdir()
    (tmp_path / "polyps" / "models" / "model.ts").touch()
    with pytest.raises(ValueError, match=r"polyps: has one runtime alone, as every pure zip\.$"):
        time_runtimes(tmp_path / "polyps")
