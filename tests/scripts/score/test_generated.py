import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clinbundles.engines.metrics.generation import kernel_distance
from clinbundles.nets.feature_extractor import feature_extractor, features_of
from clinbundles.scripts import cli


def write_set(folder: Path, counts: dict[str, int], *, brightness: int) -> Path:
    """Splits of noise images of 16 x 16 px."""
    rng = np.random.default_rng(brightness)
    content = {}
    for split, count in counts.items():
        folder.mkdir(exist_ok=True)
        content[split] = [{"image": f"{split}_{number}.png"} for number in range(count)]
        for item in content[split]:
            pixels = rng.integers(0, brightness, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / item["image"])
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder / "datalist.json"


def run(*words: object) -> None:
    cli.main(["score", "generated", *map(str, words)])


def test_generated_images_come_out_as_a_table_with_held_out_ones_beside(
    mobilenet_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    real = write_set(tmp_path / "real", {"training": 9, "test": 7}, brightness=255)
    write_set(tmp_path / "made", {"training": 8}, brightness=100)
    run("--generated", tmp_path / "made", "--real", real, "--feature_weights", mobilenet_weights)
    said = capsys.readouterr().out
    assert "| measure | generated | 95 % | test images |" in said
    assert "| KID-MobileNetV2 |" in said
    assert "generated images are 8, fewer than the 1280 features" in said
    content = json.loads((tmp_path / "made" / "score" / "scores.json").read_text())
    assert content["images"] == {"training": 9, "generated": 8, "test": 7}
    kid = {kind: scores["KID-MobileNetV2"]["value"] for kind, scores in content["scores"].items()}
    assert kid["generated"] > kid["test"]
    assert set(content["scores"]["test"]["KID-MobileNetV2"]) == {"value"}  # of patients, whose images are not resampled
    extractor = feature_extractor(mobilenet_weights)

    def features(folder: str, split: str, count: int) -> np.ndarray:
        files = [tmp_path / folder / f"{split}_{number}.png" for number in range(count)]
        pixels = np.stack([np.asarray(Image.open(file), dtype=np.float32) for file in files])
        return features_of(extractor, torch.from_numpy(pixels)[:, None] / 127.5 - 1).numpy()

    expected = kernel_distance(features("real", "training", 9), features("made", "training", 8))
    assert kid["generated"] == pytest.approx(expected, rel=1e-3)


def test_without_weights_nothing_is_scored(tmp_path: Path) -> None:
    real = write_set(tmp_path / "real", {"training": 6}, brightness=255)
    write_set(tmp_path / "made", {"training": 6}, brightness=100)
    with pytest.raises(SystemExit, match="score generated: feature_weights is missing: random features of MobileNetV2"):
        run("--generated", tmp_path / "made", "--real", real)
    assert not (tmp_path / "made" / "score").exists()


def test_too_few_images_end_in_a_sentence(mobilenet_weights: Path, tmp_path: Path) -> None:
    real = write_set(tmp_path / "real", {"training": 6}, brightness=255)
    write_set(tmp_path / "made", {"training": 5}, brightness=100)
    with pytest.raises(SystemExit, match="5 generated images are too few, expected at least 6"):
        run("--generated", tmp_path / "made", "--real", real, "--feature_weights", mobilenet_weights)
