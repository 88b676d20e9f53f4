"""A mask on disk that is filled window by window, knows how far it is, and goes on after a kill."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from clinbundles.engines.outputs.files import replacing, write_atomically

from .pyramid import add_levels, create_level, ngff_metadata

PROGRESS = "progress.txt"
ATTRIBUTE = "clinbundles"
SMALLEST_CHUNK, LARGEST_CHUNK = 64, 512


@dataclass(frozen=True)
class Window:
    """One window: its place in the grid, where it is read, and which part of it is kept.

    Args:
        row: row in the grid of windows.
        column: column in the grid of windows.
        y: first row of the pixels read.
        x: first column of the pixels read.
        kept_y: first and last + 1 row of the pixels kept.
        kept_x: first and last + 1 column of the pixels kept.
    """

    row: int
    column: int
    y: int
    x: int
    kept_y: tuple[int, int]
    kept_x: tuple[int, int]


def windows_of(shape: tuple[int, int], *, window: int, overlap: int) -> Iterator[Window]:
    """Lay windows over an image (H, W), row by row, that together keep every pixel once.

    Each keeps a square of window - 2 * overlap pixels in the middle of what it reads. At the image's border it is moved
    inwards rather than cut off: it always reads ``window`` pixels each way, where the image has as many, and its border
    is then the image's, as if the whole image had been read.
    """
    inner = window - 2 * overlap
    for row in range(math.ceil(shape[0] / inner)):
        for column in range(math.ceil(shape[1] / inner)):
            starts = row * inner, column * inner
            y, x = (max(min(s - overlap, size - window), 0) for s, size in zip(starts, shape, strict=True))
            kept = [(s, min(s + inner, size)) for s, size in zip(starts, shape, strict=True)]
            yield Window(row, column, y, x, kept[0], kept[1])


def chunk_of(*, window: int, overlap: int) -> int:
    """Return the side in pixels of the chunks that the kept part of a window divides into: a power of two up to 512.

    Raises:
        ValueError: the kept part, window - 2 * overlap, is no multiple of 64.
    """
    inner = window - 2 * overlap
    if overlap < 0 or inner <= 0 or math.gcd(inner, LARGEST_CHUNK) < SMALLEST_CHUNK:
        raise ValueError(
            f"window is {window} and overlap {overlap}: expected an overlap of 0 or more and window - 2 * overlap, now "
            f"{inner}, to be a multiple of {SMALLEST_CHUNK}."
        )
    return math.gcd(inner, LARGEST_CHUNK)


def earlier_settings(output: Path) -> tuple[dict[str, Any], bool] | None:
    """Return the settings that a result was begun with and whether it is complete; None where there is nothing.

    Raises:
        FileExistsError: there is something else.
    """
    if not output.exists():
        return None
    note = None
    if (output / "zarr.json").is_file():
        with contextlib.suppress(ValueError):  # no JSON
            note = json.loads((output / "zarr.json").read_text()).get("attributes", {}).get(ATTRIBUTE)
    if note is None:
        raise FileExistsError(f"{output} exists and is no result of this command: choose another output.")
    return note["settings"], note["complete"]


class MaskStore:
    """OME-NGFF 0.5 folder of a mask (H, W) of 0 and 1, and, if asked for, of the probability times 255.

    Every window is one file, renamed into place when complete, and then one line in ``progress.txt``. The attribute
    "ome", without which no reader takes the folder for an image, and ``complete`` are written last, by ``finish``.

    Args:
        output: the folder, absent or begun with the same settings.
        shape: image size (H, W).
        settings: all that decides the result; ``window``, ``overlap``, ``keep_probability`` and ``threshold`` are used
            here.
        restart: replace what is there.

    Raises:
        ValueError: what is there was begun with other settings.
        FileExistsError: something else is there.
    """

    def __init__(
        self, output: Path, shape: tuple[int, int], settings: Mapping[str, Any], *, restart: bool = False
    ) -> None:
        self.output, self.settings = output, json.loads(json.dumps(settings))
        earlier = earlier_settings(output)
        if earlier is None or restart:
            self._create(shape)
            self.complete = False
        else:
            self._refuse_other_settings(earlier[0])
            self.complete = earlier[1]
        self._group = zarr.open_group(output, mode="r+")
        self.done = set() if self.complete else self._read_progress()

    def write(self, probability: np.ndarray | None, place: Window) -> None:
        """Write the kept part (h, w) of a window, None for background, and note it as done."""
        if probability is not None:
            at = slice(*place.kept_y), slice(*place.kept_x)
            mask: Any = self._group["0"]
            mask[at] = (probability >= self.settings["threshold"]).astype(np.uint8)
            if self.settings["keep_probability"]:
                level: Any = self._group["probability/0"]
                level[at] = np.rint(probability * 255).astype(np.uint8)
        with (self.output / PROGRESS).open("a") as stream:
            stream.write(f"{place.row} {place.column}\n")
        self.done.add((place.row, place.column))

    def finish(
        self, *, pixel_size_um: tuple[float, float] | None, origin_um: tuple[float, float] | None = None
    ) -> None:
        """Build the pyramids, then note that the result is complete, the mask's group last."""
        place: dict[str, Any] = {"pixel_size_um": pixel_size_um, "origin_um": origin_um}
        if self.settings["keep_probability"]:
            probability: Any = self._group["probability"]
            n_levels = add_levels(probability, reduce="mean")
            ome = ngff_metadata(n_levels, **place, reduce="mean", is_label=False)
            probability.update_attributes({"ome": ome})
        n_levels = add_levels(self._group, reduce="max")
        ome = ngff_metadata(n_levels, **place, reduce="max", is_label=True)
        self._group.update_attributes({"ome": ome, ATTRIBUTE: {"complete": True, "settings": self.settings}})
        self.complete = True
        (self.output / PROGRESS).unlink(missing_ok=True)

    def _create(self, shape: tuple[int, int]) -> None:
        """Make the folder with empty arrays, noted as unfinished, and put it into place at once."""
        window, overlap = self.settings["window"], self.settings["overlap"]
        chunk, shard = chunk_of(window=window, overlap=overlap), window - 2 * overlap
        with replacing(self.output) as partial:
            group = zarr.create_group(partial, attributes={ATTRIBUTE: {"complete": False, "settings": self.settings}})
            groups = [group, group.create_group("probability")] if self.settings["keep_probability"] else [group]
            for each in groups:
                create_level(each, "0", shape, chunk=chunk, shard=shard)
            if self.output.exists():
                shutil.rmtree(self.output)

    def _refuse_other_settings(self, earlier: Mapping[str, Any]) -> None:
        keys = sorted(earlier.keys() | self.settings.keys())
        changes = [
            f"{key} {earlier.get(key)!r} then, {self.settings.get(key)!r} now"
            for key in keys
            if earlier.get(key) != self.settings.get(key)
        ]
        if changes:
            raise ValueError(
                f"{self.output} was begun with other settings ({', '.join(changes)}): use the same ones, or --restart."
            )

    def _read_progress(self) -> set[tuple[int, int]]:
        """Return the grid places that are done; a last line torn by a kill does not count and is removed."""
        path = self.output / PROGRESS
        text = path.read_text() if path.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        write_atomically(path, whole)
        return {(int(row), int(column)) for row, column in (line.split() for line in whole.splitlines())}
