"""Masks of single instances joined to one: run lengths of Kaggle's tables, polygons of COCO's lists."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from skimage.draw import polygon


def decode_runs(text: str, *, height: int, width: int, column_major: bool = False) -> np.ndarray:
    """Decode run lengths to a mask, bool (height, width).

    Args:
        text: ``start length start length ...``; the first pixel is 1; nothing at all is an empty mask.
        height: of the image in pixels.
        width: of the image in pixels.
        column_major: pixels are counted down the columns (Data Science Bowl 2018) and not along the rows (Sartorius).

    Raises:
        ValueError: the text is no pairs of whole numbers, or a run is empty or leaves the image.
    """
    try:
        numbers = [int(word) for word in text.split()]
    except ValueError as error:
        raise ValueError(f"run lengths {text[:40]!r} are not whole numbers.") from error
    if len(numbers) % 2:
        raise ValueError(f"{len(numbers)} run-length numbers, expected pairs of start and length.")
    mask = np.zeros(height * width, dtype=bool)
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        if start < 1 or length < 1 or start + length - 1 > mask.size:
            raise ValueError(f"run of {length} pixels from pixel {start} on leaves the image of {width}x{height} px.")
        mask[start - 1 : start - 1 + length] = True
    return mask.reshape(width, height).T if column_major else mask.reshape(height, width)


def read_coco(path: Path) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Read a list of COCO: each of its images with its annotations.

    Raises:
        ValueError: the file is no JSON, lacks an entry, or an annotation is of no image.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images = {entry["id"]: entry for entry in content["images"]}
        cells: dict[Any, list[dict[str, Any]]] = {key: [] for key in images}
        annotations = content["annotations"]
        for annotation in annotations.values() if isinstance(annotations, Mapping) else annotations:
            if annotation["image_id"] not in cells:
                raise ValueError(f"annotation {annotation['id']} is of image {annotation['image_id']}, not listed here")
            cells[annotation["image_id"]].append({"id": annotation["id"], "parts": annotation["segmentation"]})
        for entry in images.values():
            _ = entry["file_name"], int(entry["width"]), int(entry["height"])
    except KeyError as error:
        raise ValueError(f"{path}: an entry of the COCO list lacks {error}.") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: no COCO list: {error}.") from error
    yield from ((entry, cells[key]) for key, entry in images.items())


def union_of_polygons(cells: Sequence[Mapping[str, Any]], *, size: tuple[int, int], path: Path) -> np.ndarray:
    """Join the cells of one image to a mask, bool (height, width).

    Args:
        cells: each with its id and its parts, polygons x, y, x, y, ... in px.
        size: width and height of the image.
        path: the list they are from, to name it.

    Raises:
        ValueError: a part is no polygon.
    """
    mask = np.zeros(size[::-1], dtype=bool)
    for cell in cells:
        for part in cell["parts"]:
            if not isinstance(part, list) or len(part) < 6 or len(part) % 2:
                raise ValueError(f"{path}: annotation {cell['id']}: segmentation is no list of polygons.")
            # In COCO the middle of the first pixel is at 0.5.
            points = np.asarray(part, dtype=np.float64).reshape(-1, 2) - 0.5
            mask[polygon(points[:, 1], points[:, 0], mask.shape)] = True
    return mask
