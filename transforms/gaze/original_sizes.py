"""Sizes of the original images in a table of gaze: the pixels that the width of a fixation is counted in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .samples import RecordingSetup
from .tables import Column, GazeTable, open_table

_NAMES = ("image", "presentedmedianame", "medianame", "presentedstimulusname")
_SIDES = (("image_height", "originalmediaheight"), ("image_width", "originalmediawidth"))


def read_original_sizes(
    path: str | Path,
    *,
    image_column: str | None = None,
    image_name: str | None = None,
    images: Collection[str] | None = None,
) -> dict[str, tuple[int, int]]:
    """Read height and width in px of the original images, by name, where a table of gaze tells them.

    GazeMedSeg has the columns IMAGE_HEIGHT and IMAGE_WIDTH, Tobii Pro Lab ``Original Media height`` and ``width``.

    Args:
        path: the file, one that :func:`~.readers.read_fixations` reads.
        image_column: column of the names of the images, where it is another than in these formats.
        image_name: file name of the one image, for files that do not name it.
        images: file names of a data set's images, as in :func:`~.readers.read_fixations`.

    Raises:
        FileNotFoundError, ValueError: the file cannot be read, or an image has a size that is none, or two of them.
    """
    table = open_table(path)
    columns = [table.find(*stems, units=("", "px")) for stems in _SIDES]
    name = table.find(*_NAMES) if image_column is None else _named(table, image_column)
    if columns[0] is None or columns[1] is None or (name is None and image_name is None):
        return {}
    table.load(frozenset(column.stem for column in (*columns, name) if column is not None))
    sides = np.column_stack([table.numbers(column) for column in columns if column])
    names = np.full(len(sides), image_name, object) if name is None else table.names(name)
    has_size = np.isfinite(sides).all(axis=1) & (names != "")
    sides, names = sides[has_size], names[has_size]
    if not len(names):
        return {}
    setup = RecordingSetup(path=table.path, images=images, report=lambda _: None)  # the reader of gaze has said it
    names = setup.on_images(names)
    return {image: _only_size(table.path, image, sides[names == image]) for image in dict.fromkeys(names) if image}


def naming_of(settings: Mapping[str, Any]) -> dict[str, str | None]:
    """Pick, of the settings of :func:`~.readers.read_fixations`, what tells which image a row is of."""
    return {"image_column": (settings.get("columns") or {}).get("image"), "image_name": settings.get("image_name")}


def _named(table: GazeTable, name: str) -> Column | None:
    return next((column for column in table.columns if column.name == name), None)


def _only_size(path: Path, image: str, sides: np.ndarray) -> tuple[int, int]:
    sizes = np.unique(sides, axis=0)
    if len(sizes) > 1:
        (height, width), (other_height, other_width) = sizes[:2]
        raise ValueError(
            f"{path}: {image} has the original sizes {width:g}x{height:g} and {other_width:g}x{other_height:g} px, "
            "expected a single one."
        )
    height, width = sizes[0]
    if min(height, width) < 1 or (sizes != np.rint(sizes)).any():
        raise ValueError(f"{path}: {image} has the original size {width:g}x{height:g} px, expected whole numbers.")
    return int(height), int(width)
