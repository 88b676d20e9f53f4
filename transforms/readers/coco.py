"""COCO lists of instances: images with their boxes, points and masks, and masks as run lengths.

A box is x, y, width, height in px, with the corner of the first pixel at 0. Run lengths are counted down the columns.
Source: Lin et al., Microsoft COCO: Common Objects in Context, 2014; points as in Cheng et al., Pointly-Supervised
Instance Segmentation, 2022, section 3. No torch is needed here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval import mask_api_new_cpp as mask_api

from .limits import PIXEL_BYTES, TooLargeError, check_bytes


@dataclass(frozen=True)
class CocoList:
    """Images and annotations of one list, to be read only: a process reads a file once.

    Args:
        path: file of the list.
        images: entries with file_name, width and height, by the image's id.
        annotations: those of each image, by the image's id.
    """

    path: Path
    images: Mapping[Any, dict[str, Any]]
    annotations: Mapping[Any, list[dict[str, Any]]]

    @cached_property
    def most_points(self) -> int:
        """The largest number of points that an annotation has."""
        counts = (len(a.get("point_coords") or ()) for annotations in self.annotations.values() for a in annotations)
        return max(counts, default=0)

    def image(self, image_id: Any) -> dict[str, Any]:
        """Find the entry of an image.

        Raises:
            ValueError: there is none.
        """
        if image_id not in self.images:
            raise ValueError(f"{self.path}: there is no image of id {image_id!r}.")
        return self.images[image_id]


def read_coco(path: str | PathLike[str]) -> CocoList:
    """Read a list of COCO, once as long as the file stays the same.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, an entry is missing, an id stands twice, an annotation is of no image, or an image is
            larger than the limit.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file.")
    status = file.stat()
    return _read(file.resolve(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, *_: int) -> CocoList:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images, annotations = _entries(content["images"]), _entries(content["annotations"])
        for entry in images:
            entry["width"], entry["height"] = int(entry["width"]), int(entry["height"])
            name = str(entry["file_name"])
            check_bytes(path, PIXEL_BYTES * entry["width"] * entry["height"], f"{name} of {_by(entry)} px")
        by_id = _by_id(images, "image")
        _by_id(annotations, "annotation")
        by_image: dict[Any, list[dict[str, Any]]] = {key: [] for key in by_id}
        for annotation in annotations:
            if annotation["image_id"] not in by_image:
                raise ValueError(f"annotation {annotation['id']} is of image {annotation['image_id']}, not listed here")
            by_image[annotation["image_id"]].append(annotation)
    except TooLargeError:
        raise
    except KeyError as error:
        raise ValueError(f"{path}: an entry of the COCO list lacks {error}.") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: no COCO list: {error}.") from error
    return CocoList(path, by_id, by_image)


def _by(entry: Mapping[str, Any]) -> str:
    return f"{entry['width']}x{entry['height']}"


def _entries(entries: Any) -> list[dict[str, Any]]:
    """Return the entries of a list, or of a dictionary of them as LIVECell has it."""
    return [dict(entry) for entry in (entries.values() if isinstance(entries, Mapping) else entries)]


def _by_id(entries: Sequence[dict[str, Any]], kind: str) -> dict[Any, dict[str, Any]]:
    by_id: dict[Any, dict[str, Any]] = {}
    for entry in entries:
        if by_id.setdefault(entry["id"], entry) is not entry:
            raise ValueError(f"two entries for {kind} {entry['id']}")
    return by_id


class Instances(NamedTuple):
    """What an image of a datalist truly holds, for an evaluator.

    Args:
        image_id: of the image in its list.
        height: of the image in px.
        width: of the image in px.
        boxes: float64 (K, 4), corners x1, y1, x2, y2 in px.
        masks: K run lengths {"size": [height, width], "counts": text}; None where an instance has no mask.
    """

    image_id: Any
    height: int
    width: int
    boxes: np.ndarray
    masks: list[dict[str, Any] | None]


def instances_of(item: Mapping[str, Any]) -> Instances:
    """Read the instances of an item of a datalist, whose ``label`` is a COCO list and ``image_id`` an image in it.

    Raises:
        FileNotFoundError, ValueError: there is no such list, or no such image in it.
    """
    coco = read_coco(item["label"])
    entry = coco.image(item["image_id"])
    annotations = coco.annotations[item["image_id"]]
    size = {"height": entry["height"], "width": entry["width"]}
    boxes = np.array([annotation["bbox"] for annotation in annotations], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = [as_run_lengths(a["segmentation"], **size) if a.get("segmentation") else None for a in annotations]
    return Instances(item["image_id"], size["height"], size["width"], boxes, masks)


def points_of(item: Mapping[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read the points of the instances of an item of a datalist, in the order of :func:`instances_of`.

    Returns:
        for each instance pixels (x, y), int64 (P, 2), and labels, int64 (P,): 1 cell, 0 background. P may be 0.
    """
    annotations = read_coco(item["label"]).annotations[item["image_id"]]
    return [
        (
            np.floor(np.array(a.get("point_coords") or (), dtype=np.float64)).astype(np.int64).reshape(-1, 2),
            np.array(a.get("point_labels") or (), dtype=np.int64),
        )
        for a in annotations
    ]


def as_run_lengths(segmentation: Any, *, height: int, width: int) -> dict[str, Any]:
    """Bring a segmentation to compressed run lengths {"size": [height, width], "counts": text}.

    Args:
        segmentation: polygons [[x, y, x, y, ...], ...] in px, or run lengths with counts as numbers or text.
        height: of the image in px.
        width: of the image in px.

    Raises:
        ValueError: it is neither, or of an image of another size.
    """
    if isinstance(segmentation, Mapping):
        runs = _counts(segmentation, height=height, width=width)
        return _as_text(mask_api.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width))
    if not isinstance(segmentation, Sequence) or not segmentation or isinstance(segmentation, str):
        raise ValueError("its segmentation is no list of polygons and no run lengths")
    polygons = [_polygon(part, farthest=10 * max(height, width)) for part in segmentation]
    return _as_text(mask_api.merge(mask_api.frPyObjects(polygons, height, width), 0))


def _polygon(part: Any, *, farthest: float) -> list[float]:
    """Check a polygon, which takes time and memory by its extent."""
    numbers = isinstance(part, list) and all(type(number) in (int, float) for number in part)
    if not numbers or len(part) < 6 or len(part) % 2:
        raise ValueError("a part of its segmentation is no polygon: x, y, x, y, ... of three corners or more")
    if strays := [number for number in part if not abs(number) <= farthest]:
        raise ValueError(f"a polygon of its segmentation reaches to {strays[0]:g} px")
    return part


def _as_text(run_lengths: Mapping[str, Any]) -> dict[str, Any]:
    counts = run_lengths["counts"]
    return {"size": list(run_lengths["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts}


def _counts(run_lengths: Mapping[str, Any], *, height: int, width: int) -> np.ndarray:
    """Return lengths of 0s and 1s in turn, int64 (R,), that add up to height x width."""
    size, counts = run_lengths.get("size"), run_lengths.get("counts")
    if not isinstance(size, Sequence) or list(size) != [height, width]:
        raise ValueError(f"its run lengths have size {size}, the image is {height} px high and {width} px wide")
    if isinstance(counts, str | bytes):
        try:
            counts = mask_api.toUncompressedRLE([{"size": [height, width], "counts": counts}])[0]["counts"]
        except (RuntimeError, ValueError) as error:
            raise ValueError("its run lengths are no text of COCO's") from error
    if not isinstance(counts, list) or not all(type(n) is int and 0 <= n <= height * width for n in counts):
        raise ValueError("its run lengths are no whole numbers within the image")
    runs = np.array(counts, dtype=np.int64)
    if runs.sum() != height * width:
        raise ValueError(f"its run lengths add up to {runs.sum()} px, the image has {height * width}")
    return runs


def pixels_of(run_lengths: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Decode run lengths to the rows and the columns of the mask's pixels, int64 (A,) each.

    It takes time by the mask's pixels and not by the image's: the cells of an image are many and small.

    Raises:
        ValueError: the run lengths do not fill their size, or the mask has more pixels than the limit.
    """
    height, width = run_lengths["size"]
    runs = _counts(run_lengths, height=height, width=width)
    ends = np.cumsum(runs)
    lengths, stops = runs[1::2], ends[1::2]
    check_bytes("run lengths", 2 * 8 * int(lengths.sum()), f"a mask of {lengths.sum()} px")
    # Within each run, the position is that of the pixel before plus one.
    positions = np.arange(lengths.sum()) + np.repeat(stops - np.cumsum(lengths), lengths)
    columns, rows = np.divmod(positions, height)
    return rows, columns


def decode_mask(run_lengths: Mapping[str, Any]) -> np.ndarray:
    """Decode run lengths to a mask, bool (H, W)."""
    height, width = run_lengths["size"]
    check_bytes("run lengths", PIXEL_BYTES * height * width, f"a mask in an image of {width}x{height} px")
    runs = _counts(run_lengths, height=height, width=width)
    return np.ascontiguousarray(np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T)


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask (H, W), true where it is not 0, as compressed run lengths."""
    height, width = mask.shape
    return encode_positions(np.flatnonzero(mask.T), height=height, width=width)


def encode_positions(positions: np.ndarray, *, height: int, width: int) -> dict[str, Any]:
    """Encode the pixels of a mask as compressed run lengths.

    Args:
        positions: column * height + row of each pixel, int (A,), in rising order.
        height: of the image in px.
        width: of the image in px.
    """
    starts = positions[np.diff(positions, prepend=-2) != 1]
    stops = positions[np.diff(positions, append=-2) != 1] + 1
    changes = np.stack([starts, stops], axis=1).ravel()
    counts = np.diff(changes, prepend=0, append=height * width).tolist()
    # Nothing follows a mask that reaches to the last pixel.
    counts = counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts
    return _as_text(mask_api.frPyObjects({"size": [height, width], "counts": counts}, height, width))


def mask_box(run_lengths: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Return the box x, y, width, height in px around a mask; of width and height 0 where it is empty."""
    x, y, width, height = mask_api.toBbox([dict(run_lengths)])[0]
    return float(x), float(y), float(width), float(height)


def mask_area(run_lengths: Mapping[str, Any]) -> int:
    """Count the pixels of a mask."""
    return int(mask_api.area([dict(run_lengths)])[0])
