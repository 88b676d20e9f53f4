import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from monai.data import load_decathlon_datalist
from PIL import Image

from clinbundles.scripts.score.predictions import read_predictions

from .conftest import N_IMAGES, SIDE, annotation, cells_of, label_map


@pytest.fixture
def items(data: Path) -> list[dict[str, Any]]:
    return load_decathlon_datalist(str(data / "datalist.json"), True, "test", str(data))


@pytest.mark.parametrize("ending", [".png", ".tif", "_cp_masks.png", "_label.tif", ".npy", "_masks.npy"])
def test_label_maps_of_any_program_are_found_by_the_name_of_the_image(
    items: list, save_maps: Callable, ending: str
) -> None:
    images, left_out, has_scores = read_predictions(save_maps("maps", ending=ending), items)
    assert not left_out
    assert not has_scores
    assert [image.name for image in images] == [f"im{number:02}.png" for number in range(N_IMAGES)]
    assert all(image.matches is not None and image.matches.f1 == 1 for image in images)
    assert all((image.detections.scores == 1).all() for image in images)


def test_numbers_may_have_gaps_and_be_large(items: list, save_maps: Callable) -> None:
    folder = save_maps("maps", ending=".tif")
    labels = label_map(cells_of(0)).astype(np.uint32)
    tifffile.imwrite(folder / "im00.tif", labels * 70_000)
    images, left_out, _ = read_predictions(folder, items)
    assert not left_out
    assert images[0].matches is not None
    assert images[0].matches.f1 == 1


def test_what_cannot_be_scored_is_named_with_its_reason_and_the_rest_goes_on(items: list, save_maps: Callable) -> None:
    folder = save_maps("maps", ending=".png")
    (folder / "im00.png").unlink()
    Image.fromarray(np.zeros((SIDE, SIDE // 2), dtype=np.uint8)).save(folder / "im01.png")
    Image.fromarray(((label_map(cells_of(2)) > 0) * 255).astype(np.uint8)).save(folder / "im02.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(folder / "im03.png")
    np.save(folder / "im04_masks.npy", np.zeros((SIDE, SIDE), dtype=np.uint8))
    (folder / "im05.png").write_bytes(b"nothing")
    (folder / "im06.png").unlink()
    np.save(folder / "im06.npy", np.full((SIDE, SIDE), 0.5))
    images, left_out, _ = read_predictions(folder, items)
    assert [image.name for image in images] == [f"im{number:02}.png" for number in range(7, N_IMAGES)]
    reasons = {
        "im00.png": "has no label map",
        "im01.png": "im01.png has 32x64 px, the image 64x64",
        "im02.png": "holds 0 and 255 alone",
        "im03.png": "pixel mode 'RGB' is no label map",
        "im04.png": "has 2 label maps: im04.png, im04_masks.npy",
        "im05.png": "not a readable image file",
        "im06.png": "a label map is one number a pixel",
    }
    assert left_out.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in left_out[name]


def test_an_object_array_is_never_unpickled(items: list, save_maps: Callable) -> None:
    folder = save_maps("maps", ending=".npy")
    np.save(folder / "im00.npy", np.array([{"masks": 1}], dtype=object), allow_pickle=True)
    assert "allow_pickle=False" in read_predictions(folder, items)[1]["im00.png"]


def test_an_evaluation_has_scores_beside_its_label_maps(items: list, save_maps: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "evaluation"
    folder.mkdir()
    save_maps("evaluation/label_maps", ending=".tif")
    images = [{"id": n, "file_name": f"im{n:02}.png", "height": SIDE, "width": SIDE} for n in range(N_IMAGES)]
    found = [
        annotation(cell, n, 10 * n + k, score=0.9 - 0.1 * k)
        for n in range(N_IMAGES)
        for k, cell in enumerate(cells_of(n))
    ]
    content = {"images": images, "annotations": found, "categories": [{"id": 1, "name": "cell"}]}
    (folder / "detections.json").write_text(json.dumps(content))
    read, left_out, has_scores = read_predictions(folder, items)
    assert has_scores
    assert not left_out
    assert read[0].detections.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert read[0].detections.boxes[0].tolist() == [4, 4, 14, 14]
    assert read[0].matches is not None
    (folder / "label_maps" / "im00.tif").unlink()
    assert read_predictions(folder, items)[0][0].matches is None
    content["images"] = images[1:]
    content["annotations"] = [a for a in found if a["image_id"] > 0]
    (folder / "detections.json").write_text(json.dumps(content))
    assert "there is no image of id 0" in read_predictions(folder, items)[1]["im00.png"]


def test_a_missing_folder_is_named(items: list, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none: no such folder of predictions"):
        read_predictions(tmp_path / "none", items)
