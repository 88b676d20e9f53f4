"""Annotations of single instances as data sets have them, and those of use: checked, cut at the image, with points."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clinbundles.transforms.readers.coco import (
    as_run_lengths,
    decode_mask,
    encode_positions,
    mask_area,
    mask_box,
)

from .pairs import DataSet

# A box that is cut by less was only rounded.
ROUNDING_PX = 1.0


@dataclass(frozen=True)
class Annotation:
    """One instance as its data set has it, unchecked.

    Args:
        name: how to find it, such as "annotation 12".
        box: x, y, width, height in px; None takes that of the mask.
        segmentation: polygons or run lengths, as COCO has them; None where there is no mask.
        points: x, y in px, pixels or places within them.
        point_labels: 1 for a point on the cell, 0 for one beside it.
        crowd: whether it marks a region of many.
        id: number of its own, None where there is none.
    """

    name: str
    box: Any = None
    segmentation: Any = None
    points: Any = ()
    point_labels: Any = ()
    crowd: bool = False
    id: int | None = None


@dataclass(frozen=True)
class AnnotatedImage:
    """One image with its instances. Images of one group stay together.

    Args:
        image: image file.
        group: patient, well or sequence where known, else the image's own name.
        annotate: reads its annotations.
        size: width and height in px, where the data set tells them.
        split: training, validation or test where the data set says so.
        fault: why the image is of no use, as a sentence, where its layout knows.
        unused: why it is left out although it could be used, after "1 image": "that stands twice".
        id: number of its own, None where there is none.
    """

    image: Path
    group: str
    annotate: Callable[[], Iterable[Annotation]]
    size: tuple[int, int] | None = None
    split: str | None = None
    fault: str | None = None
    unused: str | None = None
    id: int | None = None


@dataclass(frozen=True)
class InstanceSet:
    """Images with instances: what the data set is, and its images.

    Args:
        name: of the data set.
        description: what it holds, with its source.
        licence: of the data.
        label: what an instance is.
        modality: how the images were taken.
        images: its images.
        ratios: shares of training, validation and test where none are asked for.
        by_look: whether images of each size, of grey and colour, of dark and bright ground are split apart.
    """

    name: str
    description: str
    licence: str
    label: str
    modality: str
    images: Iterable[AnnotatedImage]
    ratios: tuple[float, float, float] = (60, 10, 30)
    by_look: bool = False


@dataclass(frozen=True)
class CellSet:
    """Images with instances, which may also be one mask an image."""

    masks: DataSet
    instances: InstanceSet


@dataclass(frozen=True)
class Instance:
    """An instance of use: its box x, y, width, height within the image, its run lengths, its points as whole pixels."""

    name: str
    box: tuple[float, float, float, float]
    run_lengths: dict[str, Any] | None
    points: list[tuple[int, int]]
    point_labels: list[int]
    id: int | None

    @property
    def area(self) -> float:
        """Pixels of the mask, or px² of the box where there is none."""
        return self.box[2] * self.box[3] if self.run_lengths is None else mask_area(self.run_lengths)


@dataclass
class Omissions:
    """What is left out, counted by its reason, with the first one of each."""

    counts: dict[str, int] = field(default_factory=dict)
    firsts: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """Count one more."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.firsts.setdefault(reason, name)

    def join(self, other: Omissions) -> None:
        """Add what another one counted."""
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            self.firsts.setdefault(reason, other.firsts[reason])

    def total(self) -> int:
        """Count all."""
        return sum(self.counts.values())

    def __str__(self) -> str:
        return "; ".join(f"{count} {reason}, first {self.firsts[reason]}" for reason, count in self.counts.items())


@dataclass
class Tally:
    """The count of all annotations, of those that are left out, of points that are, and of boxes that were cut."""

    annotations: int = 0
    omitted: Omissions = field(default_factory=Omissions)
    points: Omissions = field(default_factory=Omissions)
    cut: Omissions = field(default_factory=Omissions)

    def add(self, other: Tally) -> None:
        """Add what another one counted."""
        self.annotations += other.annotations
        self.omitted.join(other.omitted)
        self.points.join(other.points)
        self.cut.join(other.cut)


def usable_instances(image: AnnotatedImage, *, height: int, width: int, tally: Tally) -> list[Instance]:
    """Check the annotations of an image; what is of no use is counted in ``tally`` and left out.

    Args:
        image: with its annotations.
        height: of the image file in px.
        width: of the image file in px.
        tally: is added to.
    """
    instances = []
    for annotation in image.annotate():
        tally.annotations += 1
        name = f"{annotation.name} of {image.image.name}"
        try:
            instances.append(_usable(annotation, name, height=height, width=width, tally=tally))
        except ValueError as error:
            tally.omitted.add(str(error), name)
    return instances


def _usable(annotation: Annotation, name: str, *, height: int, width: int, tally: Tally) -> Instance:
    if annotation.crowd:
        raise ValueError("that mark a crowd")
    run_lengths = None
    if annotation.segmentation:
        try:
            run_lengths = as_run_lengths(annotation.segmentation, height=height, width=width)
        except ValueError as error:
            raise ValueError("whose mask cannot be read or is of another size") from error
        if not mask_area(run_lengths):
            raise ValueError("whose mask is empty")
    elif annotation.box is None:
        raise ValueError("without mask and box")
    box = mask_box(run_lengths) if annotation.box is None and run_lengths else _numbers(annotation.box)
    within = _cut(box, height=height, width=width)
    if max(abs(old - new) for old, new in zip(box, within, strict=True)) > ROUNDING_PX:
        tally.cut.add("boxes are cut at the edge of their image", name)
    points, labels = _points(annotation, name, within, tally=tally)
    return Instance(name, within, run_lengths, points, labels, annotation.id)


def _numbers(box: Any) -> tuple[float, float, float, float]:
    numbers = [float(n) for n in box if type(n) in (int, float)] if isinstance(box, Sequence) else []
    if len(numbers) != 4 or len(box) != 4 or not all(map(math.isfinite, numbers)):
        raise ValueError("whose box is not four numbers")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _cut(box: Sequence[float], *, height: int, width: int) -> tuple[float, float, float, float]:
    """Cut a box x, y, width, height at the edge of its image."""
    x, y, box_width, box_height = box
    if not (box_width > 0 and box_height > 0):
        raise ValueError("whose box has no area")
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + box_width, float(width)), min(y + box_height, float(height))
    if not (right > left and bottom > top):
        raise ValueError("whose box is outside the image")
    cut = (left, top, right - left, bottom - top)
    # Differences of decimals are not what was written: a box within the image stays as it is.
    is_within = x >= 0 and y >= 0 and x + box_width <= width and y + box_height <= height
    return (x, y, box_width, box_height) if is_within else cut


def _points(
    annotation: Annotation, name: str, box: Sequence[float], *, tally: Tally
) -> tuple[list[tuple[int, int]], list[int]]:
    """Round the points of an annotation down to pixels, without those that are none of its box."""
    x, y, width, height = box
    points, labels = [], []
    pairs, names = annotation.points or (), annotation.point_labels or ()
    if len(pairs) != len(names):
        tally.points.add("lists of points are not as long as those of their labels", name)
        return [], []
    for point, label in zip(pairs, names, strict=True):
        if label not in (0, 1) or len(point) != 2 or not all(map(math.isfinite, point)):
            tally.points.add("points are not x, y with a label of 0 or 1", name)
            continue
        column, row = math.floor(point[0]), math.floor(point[1])
        if not (x < column + 1 and column < x + width and y < row + 1 and row < y + height):
            tally.points.add("points are outside their box", name)
            continue
        points.append((column, row))
        labels.append(int(label))
    return points, labels


def with_points(instance: Instance, *, n: int, seed: Sequence[int]) -> tuple[list[list[int]], list[int]]:
    """Give an instance's own points, or else n that are drawn by its mask.

    Returns:
        pixels [x, y], and labels 1 (cell) or 0 (background); none where there is neither point nor mask.
    """
    from clinbundles.transforms.points import sample_points  # brings torch and MONAI

    if instance.points or instance.run_lengths is None:
        return [list(point) for point in instance.points], instance.point_labels
    points, labels = sample_points(decode_mask(instance.run_lengths), instance.box, n=n, seed=seed)
    return points.tolist(), labels.tolist()


def label_map_annotations(values: np.ndarray) -> Iterator[Annotation]:
    """Take each number but 0 of a label map, int (H, W), for an instance; numbers may be missing between them."""
    height, width = values.shape
    if values.min(initial=0) < 0:
        raise ValueError(f"a label map holds numbers from 0 on, this one {values.min()}")
    flat = values.T.ravel()
    order = np.argsort(flat, kind="stable")
    numbers, starts = np.unique(flat[order], return_index=True)
    for number, positions in zip(numbers, np.split(order, starts[1:]), strict=True):
        if number:
            yield Annotation(f"label {number}", segmentation=encode_positions(positions, height=height, width=width))


def annotation_of(entry: Mapping[str, Any]) -> Annotation:
    """Take an annotation from a list of COCO."""
    return Annotation(
        f"annotation {entry['id']}",
        box=entry.get("bbox"),
        segmentation=entry.get("segmentation"),
        points=entry.get("point_coords"),
        point_labels=entry.get("point_labels"),
        crowd=bool(entry.get("iscrowd")),
        id=entry["id"] if type(entry["id"]) is int else None,
    )
