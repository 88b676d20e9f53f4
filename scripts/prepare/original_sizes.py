"""Sizes of the original images, which the width of a fixation refers to: from lists of boxes, and a word on them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def sizes_in_boxes(folder: Path) -> dict[str, tuple[int, int]]:
    """Read height and width in px of the original images, by file name without suffix, from Kvasir-SEG's list of boxes.

    Args:
        folder: folder of the data set, with ``kavsir_bboxes.json`` (another ``*bboxes*.json``, or HyperKvasir's
            ``bounding-boxes.json``) or without a list.

    Raises:
        ValueError: the list is not JSON, or has an image without height and width.
    """
    sizes: dict[str, tuple[int, int]] = {}
    lists = [*folder.glob("*bboxes*.json"), *folder.glob("bounding-boxes.json")]
    for path in sorted(path for path in lists if not path.name.startswith(".")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error}).") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path}: expected the boxes of each image by its name.")
        for name, entry in content.items():
            size: Any = [entry.get(side) if isinstance(entry, dict) else None for side in ("height", "width")]
            if not all(type(side) is int and side > 0 for side in size):
                raise ValueError(f"{path}: {name} has height and width {size}, expected two whole numbers of px.")
            sizes[name] = (size[0], size[1])
    return sizes


def join_size(item: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """Join an item and the entries of its gaze; of two original sizes that of the gaze counts, and that is printed."""
    before, after = item.get("original_size"), entries.get("original_size")
    if before and after and list(before) != list(after):
        print(
            f"{item['image']}: {after[1]}x{after[0]} px in the file of gaze, {before[1]}x{before[0]} in the data set: "
            "the file of gaze counts for the width of fixations"
        )
    return {**item, **entries}


def say_sizes(items: Iterable[Mapping[str, Any]]) -> str:
    """Sentence about the images with gaze whose original size is not known; empty where there is none."""
    with_gaze = [item for item in items if item.get("fixations")]
    unknown = [item for item in with_gaze if not item.get("original_size")]
    if not unknown:
        return ""
    return (
        f"original size of {len(unknown)} of {len(with_gaze)} images with gaze not known, the first is "
        f"{unknown[0]['image']}: gaze_sigma_px counts in pixels of their files, too wide where these are smaller copies"
    )
