"""What an annotator is asked: points in the boxes of a list, one round over all boxes after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clinbundles.scripts.bars import watch
from clinbundles.scripts.prepare.annotations import (
    AnnotatedImage,
    Annotation,
    Omissions,
    Tally,
    annotation_of,
    usable_instances,
)
from clinbundles.scripts.prepare.instance_sets import refuse_corners
from clinbundles.transforms.points import draw_points
from clinbundles.transforms.readers.coco import CocoList

from .pictures import display_pixels

N_CANDIDATES = 64  # that the least certain points are chosen from
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
        box: x, y, width, height in px, within the image.
        number: of the point in the box, from 0.
    """

    name: str
    annotation_id: int
    image_id: Any
    image: Path
    box: list[float]
    number: int


def make_questions(
    images: Path,
    boxes: CocoList,
    *,
    n_points: int,
    order: Literal["listed", "shuffled"] = "listed",
    seed: int = 0,
) -> tuple[list[Question], Omissions]:
    """List the questions: the first point of every box, then the second of every box, and so on.

    An annotator who stops early leaves all boxes with about as many points. Boxes are cut at the edge of their image.
    All images are read, so that none turns out bad in the middle of the work.

    Args:
        images: folder of the images.
        boxes: the list.
        n_points: points of each box.
        order: of the boxes in a round, as listed or shuffled.
        seed: of the shuffled order.

    Returns:
        the questions, and the boxes that are left out, counted by reason.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: not a single box can be asked about, or an id is no whole number.
    """
    if not images.is_dir():
        raise FileNotFoundError(f"{images}: no such folder of images.")
    if n_points < 1:
        raise ValueError(f"n_points is {n_points}, expected 1 or more.")
    refuse_corners(boxes)
    usable: list[tuple[int, Any, Path, list[float]]] = []
    tally = Tally()
    for image_id, entry in watch(boxes.images.items(), desc="reading", unit="image"):
        file, listed = images / entry["file_name"], boxes.annotations[image_id]
        if listed and (reason := _fault_of(file, images, entry)):
            for annotation in listed:
                tally.omitted.add(reason, f"annotation {annotation['id']} of {file.name}")
            continue
        source = AnnotatedImage(file, file.name, partial(map, _box_of, listed))
        for instance in usable_instances(source, height=entry["height"], width=entry["width"], tally=tally):
            if instance.id is None or instance.id < 0:
                raise ValueError(f"{boxes.path}: the id of {instance.name} is no whole number from 0 on.")
            usable.append((instance.id, image_id, file, list(instance.box)))
    if not usable:
        raise ValueError(f"{boxes.path}: not one of its boxes can be asked about: {tally.omitted or 'there is none'}.")
    if order == "shuffled":
        usable = [usable[place] for place in np.random.default_rng(seed).permutation(len(usable))]
    questions = [
        Question(f"{annotation_id}:{number}", annotation_id, image_id, file, box, number)
        for number in range(n_points)
        for annotation_id, image_id, file, box in usable
    ]
    return questions, tally.omitted


def _box_of(entry: Mapping[str, Any]) -> Annotation:
    """Take the box alone, or the mask where that has to tell it."""
    mask = None if entry.get("bbox") else entry.get("segmentation")
    return replace(annotation_of(entry), segmentation=mask, points=(), point_labels=())


def _fault_of(file: Path, images: Path, entry: Mapping[str, Any]) -> str | None:
    """Tell why the boxes of an image cannot be asked about, as the end of "2 boxes ..."; None where they can."""
    if not file.resolve().is_relative_to(images.resolve()):
        return "whose image lies outside the folder"
    if not file.is_file():
        return "whose image is missing"
    try:
        size = display_pixels(file).size
    except (ValueError, OSError) as error:
        return f"whose image cannot be read: {error}"
    if size != (entry["width"], entry["height"]):
        return f"whose image has {size[0]}x{size[1]} px, by the list {entry['width']}x{entry['height']}"
    return None


class Points:
    """The point that a question is about: random, or where a model is least certain.

    It depends on the question alone, not on what was asked before or is shown ahead.

    Args:
        boxes: the list.
        seed: of the draw.
        model: tells the probabilities; None for random points.
    """

    def __init__(self, boxes: CocoList, *, seed: int, model: Model | None = None) -> None:
        self.boxes = boxes
        self.seed = seed
        self.model = model
        self.places: dict[str, tuple[int, int]] = {}  # so that no answer waits for the model
        self.fallbacks: set[str] = set()  # questions whose point is random although there is a model

    def place_of(self, question: Question) -> tuple[int, int]:
        """Give the pixel (x, y): by a model, the first point of a box is the least certain one, and so on."""
        if question.name not in self.places:
            self.places[question.name] = self._choose(question)
        return self.places[question.name]

    def _choose(self, question: Question) -> tuple[int, int]:
        places = self._draw(question, question.number + 1)
        if self.model is not None:
            candidates = np.array(list(dict.fromkeys(map(tuple, self._draw(question, N_CANDIDATES).tolist()))))
            values = self.model(question.image, question.box, candidates)
            if values is not None and question.number < len(candidates):
                places = candidates[np.argsort(np.abs(values - 0.5), kind="stable")]
            else:
                self.fallbacks.add(question.name)
        x, y = places[question.number]
        return int(x), int(y)

    def _draw(self, question: Question, n: int) -> np.ndarray:
        entry = self.boxes.images[question.image_id]
        seed = (self.seed, question.annotation_id)
        return draw_points(question.box, n=n, seed=seed, height=entry["height"], width=entry["width"])
