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
        "im03.png": "is no label map",
        "im04.png": "has 2 label maps: im04.png, im04_masks.npy",
        "im05.png": "not a readable image file",
        "im06.png": "a label map is one whole number a pixel",
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
    assert "lists no images of this name" in read_predictions(folder, items)[1]["im00.png"]


def write_detections(folder: Path, *, first_id: int = 0, **broken: Any) -> Path:
    """List the true cells as found; ``broken`` replaces what the first annotation of the first image has."""
    folder.mkdir()
    images = [
        {"id": n + first_id, "file_name": f"im{n:02}.png", "height": SIDE, "width": SIDE} for n in range(N_IMAGES)
    ]
    found = [
        annotation(cell, n + first_id, 10 * n + k, score=0.5)
        for n in range(N_IMAGES)
        for k, cell in enumerate(cells_of(n))
    ]
    found[0] = {name: value for name, value in (found[0] | broken).items() if value is not None}
    (folder / "detections.json").write_text(json.dumps({"images": images, "annotations": found}))
    return folder


def test_detections_belong_to_the_image_of_their_name_whatever_its_number(items: list, tmp_path: Path) -> None:
    images, left_out, _ = read_predictions(write_detections(tmp_path / "numbered", first_id=1), items)
    assert not left_out
    assert [image.detections.boxes.tolist() for image in images] == [image.truth.boxes.tolist() for image in images]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"score": None}, "lacks 'score'"),
        ({"segmentation": None}, "lacks 'segmentation'"),
        ({"score": float("nan")}, "no finite number"),
        ({"bbox": [1, 2]}, "a box is not x, y, width, height"),
    ],
)
def test_a_broken_detection_costs_its_image_alone(items: list, tmp_path: Path, broken: dict, reason: str) -> None:
    images, left_out, _ = read_predictions(write_detections(tmp_path / "broken", **broken), items)
    assert len(images) == N_IMAGES - 1
    assert reason in left_out["im00.png"]


def test_names_may_hold_what_a_pattern_would_read(items: list, tmp_path: Path) -> None:
    folder = write_detections(tmp_path / "named")
    text = (folder / "detections.json").read_text()
    (folder / "detections.json").write_text(text.replace("im00.png", "im[0].png"))
    items[0]["image"] = str(Path(items[0]["image"]).with_name("im[0].png"))
    assert not read_predictions(folder, items)[1]


def test_an_item_without_an_image_id_is_named(items: list, save_maps: Callable) -> None:
    del items[0]["image_id"]
    assert "lacks 'image_id'" in read_predictions(save_maps("maps"), items)[1]["im00.png"]


def test_what_cellpose_writes_beside_the_images_is_found(items: list, data: Path) -> None:
    for number in range(N_IMAGES):
        Image.fromarray(label_map(cells_of(number))).save(data / "images" / f"im{number:02}_cp_masks.png")
        np.save(data / "images" / f"im{number:02}_seg.npy", np.array({"masks": 1}), allow_pickle=True)
    (data / "images" / "im00_cp_masks.png").unlink()
    images, left_out, _ = read_predictions(data / "images", items)
    assert all(image.matches is not None and image.matches.f1 == 1 for image in images)
    assert left_out.keys() == {"im00.png"}
    assert "im00_seg.npy: not a readable file of numpy" in left_out["im00.png"]


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.uint64, np.float64])
def test_a_tiff_file_of_whole_numbers_is_a_label_map_in_any_type(items: list, save_maps: Callable, kind: type) -> None:
    folder = save_maps("maps", ending=".tif")
    tifffile.imwrite(folder / "im00.tif", label_map(cells_of(0)).astype(kind))
    tifffile.imwrite(folder / "im01.tif", label_map(cells_of(1)) / np.float32(2))
    images, left_out, _ = read_predictions(folder, items)
    assert left_out.keys() == {"im01.png"}
    assert "whole number a pixel" in left_out["im01.png"]
    assert images[0].matches is not None
    assert images[0].matches.f1 == 1


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and more"])
def test_a_broken_file_of_numpy_costs_its_image_alone(items: list, save_maps: Callable, content: bytes) -> None:
    folder = save_maps("maps", ending=".npy")
    (folder / "im00.npy").write_bytes(content)
    np.save(folder / "im01.npy", np.full((SIDE, SIDE), "a"))
    np.save(folder / "im02.npy", np.ones((SIDE, SIDE), dtype=complex))
    images, left_out, _ = read_predictions(folder, items)
    assert len(images) == N_IMAGES - 3
    assert left_out.keys() == {"im00.png", "im01.png", "im02.png"}


def test_a_missing_folder_is_named(items: list, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none: no such folder of predictions"):
        read_predictions(tmp_path / "none", items)
