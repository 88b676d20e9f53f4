"""Twelve images of square cells, the list of what they hold, and a datalist."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clinbundles.transforms.readers.coco import encode_mask

SIDE = 64
N_IMAGES = 12


def cells_of(number: int) -> list[tuple[int, int, int]]:
    """Corner and side of the cells of an image."""
    return [(4, 4, 10), (30, 6, 8 + number % 3), (8, 36, 12), (40, 40, 9)][: 3 + number % 2]


def label_map(cells: list[tuple[int, int, int]]) -> np.ndarray:
    labels = np.zeros((SIDE, SIDE), dtype=np.uint16)
    for number, (x, y, side) in enumerate(cells, start=1):
        labels[y : y + side, x : x + side] = number
    return labels


def annotation(cell: tuple[int, int, int], image_id: int, number: int, **fields: Any) -> dict[str, Any]:
    x, y, side = cell
    entry = {"id": number, "image_id": image_id, "category_id": 1, "bbox": [x, y, side, side]}
    return entry | {"segmentation": encode_mask(label_map([cell]) > 0)} | fields


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of which the test split is all; the folder has images, coco.json and datalist.json."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    images, annotations, items = [], [], []
    for number in range(N_IMAGES):
        name = f"images/im{number:02}.png"
        Image.fromarray((label_map(cells_of(number)) > 0).astype(np.uint8) * 200).save(folder / name)
        images.append({"id": number, "file_name": f"im{number:02}.png", "height": SIDE, "width": SIDE})
        annotations += [annotation(cell, number, 100 * number + k) for k, cell in enumerate(cells_of(number))]
        items.append({"image": name, "label": "coco.json", "image_id": number})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}
    (folder / "coco.json").write_text(json.dumps(content))
    (folder / "datalist.json").write_text(json.dumps({"training": [], "validation": [], "test": items}))
    return folder


@pytest.fixture
def save_maps(tmp_path: Path) -> Callable[..., Path]:
    """Write a label map for each image: its cells, moved and without the last few."""

    def save(name: str, *, ending: str = "_cp_masks.png", shift: int = 0, missing: int = 0) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for number in range(N_IMAGES):
            cells = [(x + shift, y, side) for x, y, side in cells_of(number)]
            labels = label_map(cells[: len(cells) - missing])
            path = folder / f"im{number:02}{ending}"
            if path.suffix == ".npy":
                np.save(path, labels)
            else:
                Image.fromarray(labels).save(path)
        return folder

    return save
