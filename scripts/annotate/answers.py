"""The answers of one annotator: a line a question on the disk at once, and the COCO list that they make."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clinbundles.engines.outputs.files import write_atomically
from clinbundles.transforms.readers.coco import CocoList

LONGEST_SECONDS = 60.0  # a longer answer was a pause, and tells nothing about the time of one


@contextmanager
def sole_use(path: Path) -> Iterator[None]:
    """Keep other processes from the answers in a file meanwhile.

    Raises:
        ValueError: another one has them.
    """
    import fcntl

    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"{path}: another clinbundles annotate is writing these answers.") from error
        yield


class Answers:
    """The answers of an annotator, kept in a file of one JSON line each.

    Args:
        path: the file; what it holds is taken up.
        boxes: the list of boxes.
        settings: what the questions depend on, such as the seed of the points.

    Raises:
        ValueError: the file is of other boxes or settings, or holds what is no answer.
    """

    def __init__(self, path: Path, boxes: CocoList, **settings: Any) -> None:
        self.path = path
        self.boxes = boxes
        self.by_name: dict[str, dict[str, Any]] = {}
        self.head = {"boxes_sha256": hashlib.sha256(boxes.path.read_bytes()).hexdigest(), **settings}
        if path.is_file() and b"\n" in path.read_bytes():
            self._take_up()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")  # of a first line that was cut off, too
            self._append(self.head)

    def _take_up(self) -> None:
        content = self.path.read_bytes()
        whole = content.rpartition(b"\n")[0]
        try:
            before, *entries = [json.loads(line) for line in whole.split(b"\n")]
            if not all(isinstance(entry, dict) and ("undo" in entry or "label" in entry) for entry in entries):
                raise ValueError("neither a label nor an undo")
        except ValueError as error:
            raise ValueError(f"{self.path}: holds a line that is no answer ({error}).") from error
        os.truncate(self.path, len(whole) + 1)  # the write of a line behind it was cut off
        for name, value in self.head.items():
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
        size = self.path.stat().st_size
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError:  # a full disk: half a line would spoil the next one
            os.truncate(self.path, size)
            raise

    @property
    def median_seconds(self) -> float | None:
        """The median time of an answer, without pauses; None without any."""
        seconds = [a["seconds"] for a in self.by_name.values() if a["seconds"] <= LONGEST_SECONDS]
        return round(statistics.median(seconds), 2) if seconds else None

    def write_list(self, output: Path, *, boxes: Mapping[Any, list[float]]) -> int:
        """Write a COCO list whose instances have the points answered so far, and return the number of answers.

        Masks and points that the boxes came with are left out: the answers are to supervise.

        Args:
            output: file to write.
            boxes: x, y, width, height in px of each annotation that is kept, by its id.
        """
        points: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        for name, answer in self.by_name.items():
            annotation_id, _, number = name.rpartition(":")
            points.setdefault(annotation_id, []).append((int(number), answer))
        annotations = []
        for annotation in (one for several in self.boxes.annotations.values() for one in several):
            if annotation["id"] not in boxes:
                continue
            bare = {k: v for k, v in annotation.items() if k not in ("segmentation", "point_coords", "point_labels")}
            bare["bbox"] = boxes[annotation["id"]]
            given = [answer for _, answer in sorted(points.get(str(annotation["id"]), []), key=lambda pair: pair[0])]
            if given:
                bare["point_coords"] = [[answer["x"], answer["y"]] for answer in given]
                bare["point_labels"] = [answer["label"] for answer in given]
            annotations.append(bare)
        info = {**self.head, "answers": len(self.by_name), "median_seconds_per_point": self.median_seconds}
        source = json.loads(self.boxes.path.read_text(encoding="utf-8"))
        kept = {name: source[name] for name in ("licenses", "categories") if name in source}
        content = {"info": info, **kept, "images": list(self.boxes.images.values()), "annotations": annotations}
        write_atomically(output, json.dumps(content))
        return len(self.by_name)
