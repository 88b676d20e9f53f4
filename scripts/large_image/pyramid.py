"""Pyramids of masks and probabilities: OME-NGFF 0.5 groups filled shard by shard, and tiled TIFF written from them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from tqdm import tqdm

from clinbundles.engines.outputs.colors import PREDICTION
from clinbundles.engines.outputs.files import replacing

SMALLEST_LEVEL = 512
SOFTWARE = "clinbundles segment-large"


def halve(plane: np.ndarray, *, reduce: str) -> np.ndarray:
    """Halve an array (h, w) of uint8 to (ceil(h / 2), ceil(w / 2)): the "max" or "mean" of each 2 × 2 block."""
    plane = np.pad(plane, [(0, size % 2) for size in plane.shape], mode="edge")
    blocks = plane.reshape(plane.shape[0] // 2, 2, plane.shape[1] // 2, 2)
    if reduce == "max":
        return blocks.max(axis=(1, 3))
    # Uneven shards would round differently from even ones in floating point; sums of four bytes are exact.
    return ((blocks.astype(np.uint16).sum(axis=(1, 3)) + 2) // 4).astype(np.uint8)


def create_level(group: zarr.Group, name: str, shape: tuple[int, int], *, chunk: int, shard: int) -> zarr.Array:
    """Add an array (H, W) of zeros to a group: one file for every shard × shard pixels, read in chunks within it."""
    return group.create_array(
        name,
        shape=shape,
        chunks=(chunk, chunk),
        shards=(shard, shard),
        dtype="uint8",
        fill_value=0,
        dimension_names=("y", "x"),
        overwrite=True,
    )


def add_levels(group: zarr.Group, *, reduce: str) -> int:
    """Build levels 1, 2, … of a group from its level 0 by halving, shard by shard; return how many levels there are.

    A mask is halved by its maximum, so that thin structures stay to be seen in the overview (areas are to be measured
    at level 0), a probability by its mean. The last level is at most 512 pixels long.
    """
    for level in itertools.count(1):
        above: Any = group[str(level - 1)]
        if max(above.shape) <= SMALLEST_LEVEL:
            return level
        shape, shard = tuple((size + 1) // 2 for size in above.shape), above.shards[0]
        target = create_level(group, str(level), (shape[0], shape[1]), chunk=above.chunks[0], shard=shard)
        corners = [(y, x) for y in range(0, shape[0], shard) for x in range(0, shape[1], shard)]
        for y, x in tqdm(corners, desc=f"level {level}", unit="shard", leave=False):
            block = halve(above[2 * y : 2 * (y + shard), 2 * x : 2 * (x + shard)], reduce=reduce)
            target[y : y + block.shape[0], x : x + block.shape[1]] = block
    raise AssertionError("unreachable")


def ngff_metadata(
    n_levels: int,
    *,
    pixel_size_um: tuple[float, float] | None,
    origin_um: tuple[float, float] | None = None,
    reduce: str,
    is_label: bool,
) -> dict[str, Any]:
    """Return the "ome" attribute of a group whose levels are called 0, 1, …, as OME-NGFF 0.5 wants it.

    Without a pixel size the unit is a pixel of level 0. A pixel of level k is the middle of 2^k × 2^k pixels; the first
    one of level 0 lies at ``origin_um``.
    """
    height, width = pixel_size_um or (1.0, 1.0)
    y, x = origin_um or (0.0, 0.0)
    unit = {"unit": "micrometer"} if pixel_size_um else {}
    datasets = []
    for level in range(n_levels):
        size, shift = 2**level, (2**level - 1) / 2
        transformations: list[dict[str, Any]] = [{"type": "scale", "scale": [height * size, width * size]}]
        if level or (y, x) != (0, 0):
            transformations.append({"type": "translation", "translation": [y + height * shift, x + width * shift]})
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    axes = [{"name": name, "type": "space", **unit} for name in "yx"]
    content: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": datasets, "type": reduce}],
    }
    if is_label:
        content["image-label"] = {"colors": [{"label-value": 1, "rgba": [*PREDICTION, 255]}]}
    return content


def is_own_tiff(path: Path) -> bool:
    """Tell whether a file is a TIFF that :func:`write_tiff` wrote."""
    try:
        with tifffile.TiffFile(path) as file:
            return file.pages.first.software == SOFTWARE
    except (tifffile.TiffFileError, OSError, ValueError):
        return False


def write_tiff(group: zarr.Group, path: Path, *, pixel_size_um: tuple[float, float] | None) -> None:
    """Write the levels of a group as a tiled, compressed, pyramidal BigTIFF, tile by tile, then rename it to ``path``.

    Beside the pixels it holds the pixel size, where that is known, that this command wrote it, and nothing else.
    """
    levels: list[Any] = []
    while str(len(levels)) in group:
        levels.append(group[str(len(levels))])
    with replacing(path) as partial, tifffile.TiffWriter(partial, bigtiff=True) as writer:
        for number, level in enumerate(levels):
            size = pixel_size_um and tuple(1e4 / (s * 2**number) for s in reversed(pixel_size_um))
            tile = level.chunks[0]
            writer.write(
                _tiles(level, tile, name=f"TIFF level {number}"),
                shape=level.shape,
                dtype=level.dtype,
                tile=(tile, tile),
                compression="deflate",
                photometric="minisblack",
                subifds=len(levels) - 1 if number == 0 else None,
                subfiletype=1 if number else 0,
                resolution=size,
                resolutionunit="CENTIMETER" if size else None,
                metadata=None,
                software=SOFTWARE if number == 0 else False,
                maxworkers=1,
            )


def _tiles(level: Any, tile: int, *, name: str) -> Iterator[np.ndarray]:
    """Yield the tiles (tile, tile) of a level row by row, those at its edge filled with zeros; one row is in memory."""
    height, width = level.shape
    for y in tqdm(range(0, height, tile), desc=name, unit="row", leave=False):
        band = level[y : y + tile]
        band = np.pad(band, ((0, tile - band.shape[0]), (0, -width % tile)))
        for x in range(0, width, tile):
            yield np.ascontiguousarray(band[:, x : x + tile])
