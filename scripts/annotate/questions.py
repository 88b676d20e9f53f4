"""What an annotator is asked: points in the boxes of a list, one round over all boxes after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clinbundles.transforms.points import check_box, draw_points
from clinbundles.transforms.readers.coco import CocoList

N_CANDIDATES = 64  # that the least certain point is chosen from
# From an image's file and a box x, y, width, height to the probabilities of a cell at pixels (x, y) (n, 2); None where
# the model finds no cell there.
Model = Callable[[Path, list[float], np.ndarray], np.ndarray | None]


@dataclass(frozen=True)
class Question:
    """One point of one box.

    Attributes:
        name: annotation's id and number of the point, such as "12:0".
        annotation_id: of the box.
        image_id: of its image.
        image: file of the image.
        box: x, y, width, height in px.
        number: of the point in the box, from 0.
    """

    name: str
    annotation_id: Any
    image_id: Any
    image: Path
    box: list[float]
    number: int


def make_questions(images: Path, boxes: CocoList, *, n_points: int) -> tuple[list[Question], dict[str, int]]:
    """List the questions: the first point of every box, then the second of every box, and so on.

    An annotator who stops early leaves all boxes with about as many points.

    Args:
        images: folder of the images.
        boxes: the list.
        n_points: points of each box.

    Returns:
        the questions, and how many boxes are left out for which reason.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: not a single box can be asked about.
    """
    if not images.is_dir():
        raise FileNotFoundError(f"{images}: no such folder of images.")
    if n_points < 1:
        raise ValueError(f"n_points is {n_points}, expected 1 or more.")
    usable: list[tuple[dict[str, Any], Path]] = []
    left_out: dict[str, int] = {}
    for image_id, listed in boxes.annotations.items():
        entry = boxes.images[image_id]
        file = images / entry["file_name"]
        fault = _fault_of(file, images, entry)
        for annotation in listed:
            reason = fault or _fault_of_box(annotation, entry)
            if reason is None:
                usable.append((annotation, file))
            else:
                left_out[reason] = left_out.get(reason, 0) + 1
    if not usable:
        raise ValueError(f"{boxes.path}: not one of its boxes can be asked about ({'; '.join(left_out) or 'no box'}).")
    questions = [
        Question(f"{a['id']}:{number}", a["id"], a["image_id"], file, [float(v) for v in a["bbox"]], number)
        for number in range(n_points)
        for a, file in usable
    ]
    return questions, left_out


def _fault_of(file: Path, images: Path, entry: Mapping[str, Any]) -> str | None:
    from PIL import Image, UnidentifiedImageError

    if not file.resolve().is_relative_to(images.resolve()):
        return f"{entry['file_name']} lies outside the folder"
    if not file.is_file():
        return f"{entry['file_name']} is missing"
    try:
        with Image.open(file) as image:
            size = image.size
    except (UnidentifiedImageError, OSError):
        return None  # DICOM and others are read when they are shown
    if size != (entry["width"], entry["height"]):
        return f"{entry['file_name']} has {size[0]}x{size[1]} px, the list {entry['width']}x{entry['height']}"
    return None


def _fault_of_box(annotation: Mapping[str, Any], entry: Mapping[str, Any]) -> str | None:
    x, y, width, height = (float(value) for value in annotation["bbox"])
    try:
        check_box((x, y, x + width, y + height), height=entry["height"], width=entry["width"])
    except ValueError as error:
        return f"annotation {annotation['id']}: {error}"
    return None


class Points:
    """The point that a question is about: random, or where a model is least certain.

    Args:
        boxes: the list.
        n_points: points of each box.
        seed: of the draw.
        model: tells the probabilities; None for random points.
    """

    def __init__(self, boxes: CocoList, *, n_points: int, seed: int, model: Model | None = None) -> None:
        self.boxes = boxes
        self.n_points = n_points
        self.seed = seed
        self.model = model
        self.n_fallbacks = 0

    def place_of(self, question: Question, taken: set[tuple[int, int]]) -> tuple[int, int]:
        """Give the pixel (x, y).

        Args:
            question: the question.
            taken: pixels of the same box that were asked about before, which the model's choice leaves out.
        """
        random = self._draw(question, self.n_points)[question.number]
        if self.model is None:
            return int(random[0]), int(random[1])
        candidates = self._draw(question, N_CANDIDATES + self.n_points)[self.n_points :]
        candidates = np.array([pixel for pixel in candidates.tolist() if tuple(pixel) not in taken]).reshape(-1, 2)
        values = self.model(question.image, question.box, candidates) if len(candidates) else None
        if values is None:
            self.n_fallbacks += 1
            return int(random[0]), int(random[1])
        x, y = candidates[int(np.argmin(np.abs(values - 0.5)))]
        return int(x), int(y)

    def _draw(self, question: Question, n: int) -> np.ndarray:
        entry = self.boxes.images[question.image_id]
        seed = (self.seed, int(question.annotation_id))
        return draw_points(question.box, n=n, seed=seed, height=entry["height"], width=entry["width"])
