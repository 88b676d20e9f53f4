"""The answers of one annotator: a line a question on the disk at once, and the COCO list that they make."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
from pathlib import Path
from typing import Any

from clinbundles.engines.outputs.files import write_atomically
from clinbundles.transforms.readers.coco import CocoList

LONGEST_SECONDS = 60.0  # a longer answer was a pause, and tells nothing about the time of one


class Answers:
    """The answers of an annotator, kept in a file of one JSON line each.

    Args:
        path: the file; what it holds is taken up.
        boxes: the list of boxes.
        settings: what the questions depend on, such as number and seed of the points.

    Raises:
        ValueError: the file is of other boxes or settings, or holds what is no answer.
    """

    def __init__(self, path: Path, boxes: CocoList, **settings: Any) -> None:
        self.path = path
        self.boxes = boxes
        self.by_name: dict[str, dict[str, Any]] = {}
        head = {"boxes_sha256": hashlib.sha256(boxes.path.read_bytes()).hexdigest(), **settings}
        if path.is_file():
            self._take_up(head)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append(head)

    def _take_up(self, head: dict[str, Any]) -> None:
        *lines, torn = self.path.read_text(encoding="utf-8").split("\n")
        if torn:  # the write of the last line was cut off
            write_atomically(self.path, "".join(f"{line}\n" for line in lines))
        try:
            before, *entries = [json.loads(line) for line in lines]
        except ValueError as error:
            raise ValueError(f"{self.path}: holds a line that is no answer ({error}).") from error
        for name, value in head.items():
            if before.get(name) != value:
                what = "other boxes" if name == "boxes_sha256" else f"{name} {before.get(name)}, now {value}"
                raise ValueError(f"{self.path}: its answers are to {what}. Give another --output or --annotator.")
        for entry in entries:
            if "undo" in entry:
                self.by_name.pop(entry["undo"], None)
            else:
                self.by_name[entry["question"]] = entry

    def add(self, name: str, *, x: int, y: int, label: int, seconds: float) -> None:
        """Keep an answer: 1 for cell, 0 for background."""
        entry = {"question": name, "x": x, "y": y, "label": label, "seconds": round(seconds, 3)}
        self._append(entry)
        self.by_name[name] = entry

    def undo(self) -> str | None:
        """Take back the last answer, and return its question; None where there is none."""
        if not self.by_name:
            return None
        name = next(reversed(self.by_name))
        self._append({"undo": name})
        del self.by_name[name]
        return name

    def _append(self, entry: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def pixels_of(self, annotation_id: Any) -> set[tuple[int, int]]:
        """List the pixels of a box that have an answer."""
        answers = (self.by_name[name] for name in self.by_name if name.rpartition(":")[0] == str(annotation_id))
        return {(answer["x"], answer["y"]) for answer in answers}

    @property
    def median_seconds(self) -> float | None:
        """The median time of an answer, without pauses; None without any."""
        seconds = [a["seconds"] for a in self.by_name.values() if a["seconds"] <= LONGEST_SECONDS]
        return round(statistics.median(seconds), 2) if seconds else None

    def write_list(self, output: Path) -> int:
        """Write the boxes as a COCO list whose instances have the points answered so far, and return their number.

        Masks and points that the boxes came with are left out: the answers are to supervise.
        """
        points: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        for name, answer in self.by_name.items():
            annotation_id, _, number = name.rpartition(":")
            points.setdefault(annotation_id, []).append((int(number), answer))
        annotations = []
        for annotation in (one for several in self.boxes.annotations.values() for one in several):
            bare = {k: v for k, v in annotation.items() if k not in ("segmentation", "point_coords", "point_labels")}
            given = [answer for _, answer in sorted(points.get(str(annotation["id"]), []), key=lambda pair: pair[0])]
            if given:
                bare["point_coords"] = [[answer["x"], answer["y"]] for answer in given]
                bare["point_labels"] = [answer["label"] for answer in given]
            annotations.append(bare)
        info = {"answers": len(self.by_name), "median_seconds_per_point": self.median_seconds}
        content = {"info": info, "images": list(self.boxes.images.values()), "annotations": annotations}
        write_atomically(output, json.dumps(content | {"categories": [{"id": 1, "name": "cell"}]}))
        return len(self.by_name)
