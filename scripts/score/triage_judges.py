"""Who judges generated pairs in place of a reference: the thresholds of HU, or a segmenter by its label maps."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clinbundles.scripts.generated_images import ImageList
from clinbundles.scripts.label_slices import read_window
from clinbundles.transforms.hu_labels import LABELLER, NAMES, label_slice
from clinbundles.transforms.readers.ct_volume import to_hu
from clinbundles.transforms.readers.slices import read_grey, read_label_map


@dataclass(frozen=True)
class Judge:
    """Who draws the label maps that those of a generated set are compared with.

    Attributes:
        name: as every result shows it.
        facts: what is known of it.
        caution: what its verdicts do not say.
        draw: its label map uint8 (H, W) of an image file.
    """

    name: str
    facts: dict[str, Any]
    caution: str
    draw: Callable[[Path], np.ndarray]


def window_of(made: ImageList, content: dict[str, Any], window_hu: Any) -> tuple[float, float]:
    """Find the HU of black and of white, as the datalist or the command says them.

    Raises:
        ValueError: neither says them, or both and otherwise.
    """
    own = content.get("window_hu")
    if own is None and window_hu is None:
        raise ValueError(
            f"{made.source}: says no window_hu: give the one that the slices were prepared with, such as --window_hu "
            "-1000,600."
        )
    window = read_window(own if window_hu is None else window_hu)
    if own is not None and window != read_window(own):
        raise ValueError(f"{made.source}: its window_hu is {own}, and --window_hu is {list(window)}.")
    return window


def automatic_judge(made: ImageList, names: Sequence[str], window: tuple[float, float]) -> Judge:
    """Judge by the thresholds of HU of :mod:`clinbundles.transforms.hu_labels`.

    Raises:
        ValueError: the classes are not those of it.
    """
    if list(names) not in (list(NAMES), list(NAMES[:-1])):
        raise ValueError(
            f"{made.source}: its classes are {', '.join(names)}, and the automatic judge is of chest CT and knows "
            f"{', '.join(NAMES)}, or all but the last: give the folder of a segmenter as --judge."
        )
    trachea = "trachea" in names
    return Judge(
        name=LABELLER,
        facts={"window_hu": list(window)},
        caution="the judge is the automatic labeller: where the interpreter learned from its labels, good says that "
        "they were learned, not that they are right",
        draw=lambda path: label_slice(to_hu(read_grey(path), window), trachea=trachea),
    )


def folder_judge(folder: Path, made: ImageList, names: Sequence[str], *, weights: str | None) -> Judge:
    """Judge by label maps <name of the image>.png that a segmenter wrote, in ``label_maps`` of a folder or in itself.

    Raises:
        FileNotFoundError: there is no such folder or no such weights, or an image has no label map.
        ValueError: they are those of the set itself, or of other classes.
    """
    maps = folder / "label_maps" if (folder / "label_maps").is_dir() else folder
    if not maps.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; --judge is automatic or a folder of label maps.")
    files = {item["image"]: maps / f"{Path(item['image']).stem}.png" for item in made.items}
    missing = [image for image, file in files.items() if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{maps}: {len(missing)} of {len(files)} images have no label map there, the first is {missing[0]}; "
            f"expected {files[missing[0]].name}."
        )
    if any(files[item["image"]].samefile(made.root / item["label"]) for item in made.items):
        raise ValueError(f"{maps}: holds the label maps of the set itself, which judge nothing.")
    table = folder / "per_image.csv"
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as stream:
            columns = next(csv.reader(stream), [])
        own = [column.removeprefix("share_") for column in columns if column.startswith("share_")]
        if own != list(names):
            raise ValueError(f"{table}: is of the classes {', '.join(own)}, and the set has {', '.join(names)}.")
    digest = None
    if weights is not None:
        if not Path(weights).is_file():
            raise FileNotFoundError(f"{weights}: no such file; --judge_weights are those of the segmenter.")
        digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    said = f"weights sha256 {digest[:12]}" if digest else "weights not named"
    return Judge(
        name=f"segmenter, label maps of {folder.name}, {said}",
        facts={"folder": folder.as_posix(), "weights_sha256": digest},
        caution="the judge is a segmenter, which errs itself, and one that learned from generated pairs shares their "
        "faults",
        draw=lambda path: read_label_map(maps / f"{path.stem}.png", names),
    )
