"""Images too large for the memory, read region by region: TIFF and its pyramids, zarr arrays, OME-NGFF groups."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import tifffile
import zarr

from clinbundles.transforms.readers.pixel_size import UM_PER_UNIT, PixelSize, tiff_pixel_size_um

_HEADER_BYTES = 65536
_SAMPLES = {"MINISBLACK": 1, "RGB": 3, "YCBCR": 3}  # what lies behind them is an alpha channel


class LargeImage:
    """A two-dimensional image of any size; ``read`` gives one region of it as (C, h, w) and decodes no more than that.

    Use ``open_large_image``; a context manager that closes the file.

    Args:
        array: the pixels, a zarr array.
        axes: its axes, one letter each: Y and X, at most one of C and S for channels, and any others of length 1.
        name: what messages call the image.
        channels: how many of the channels to read, None for all of them.
        pixel_size_um: height and width of a pixel in micrometers, None where the file does not tell.
        fingerprint: changes when the file does.
        file: what to close at the end.

    Raises:
        ValueError: axes other than these, or an empty image.
    """

    def __init__(
        self,
        array: zarr.Array,
        axes: str,
        *,
        name: str,
        channels: int | None = None,
        pixel_size_um: PixelSize | None = None,
        fingerprint: str = "",
        file: tifffile.TiffFile | None = None,
    ) -> None:
        sizes = dict(zip(axes, array.shape, strict=True))
        kept = "".join(axis for axis in axes if axis in "YXCS" or sizes[axis] > 1)
        channel_axis = "S" if sizes.get("S", 1) > 1 else "C"
        kept = kept.replace("C" if channel_axis == "S" and sizes.get("C", 1) == 1 else "", "")
        if kept.replace("S", "C") not in ("YX", "YXC", "CYX"):
            raise ValueError(f"{name}: axes are {axes} with shape {array.shape}, expected YX, YXC, YXS, CYX or SYX.")
        if 0 in array.shape:
            raise ValueError(f"{name}: shape is {array.shape}, the image is empty.")
        self._array, self._axes, self._kept, self._file = array, axes, kept, file
        self._channel_axis = next((axis for axis in kept if axis in "CS"), None)
        stored = sizes[self._channel_axis] if self._channel_axis else 1
        self.shape = (min(stored, channels or stored), sizes["Y"], sizes["X"])
        self.dtype = np.dtype(array.dtype)
        self.chunk_bytes = math.prod(array.chunks) * self.dtype.itemsize
        self.name, self.pixel_size_um, self.fingerprint = name, pixel_size_um, fingerprint

    def read(self, y: int, x: int, *, height: int, width: int) -> np.ndarray:
        """Return the region with its first pixel at row y and column x as an array (C, height, width).

        Raises:
            ValueError: the file cannot be decoded there.
        """
        wanted = {"Y": slice(y, y + height), "X": slice(x, x + width)}
        if self._channel_axis is not None:
            wanted[self._channel_axis] = slice(0, self.shape[0])
        index = tuple(wanted[axis] if axis in self._kept else 0 for axis in self._axes)
        try:
            region = np.asarray(self._array[index])
        except Exception as error:  # the codecs raise types of their own
            place = f"rows {y} to {y + height}, columns {x} to {x + width}"
            raise ValueError(f"{self.name}: {place} cannot be read ({type(error).__name__}: {error}).") from error
        if self._channel_axis is None:
            return region[None]
        return np.moveaxis(region, self._kept.index(self._channel_axis), 0)

    def __enter__(self) -> LargeImage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def open_large_image(path: str | os.PathLike, *, level: int = 0) -> LargeImage:
    """Open a TIFF file or zarr folder at one level of its pyramid; nothing of it is decoded yet.

    TIFF: tiled or striped, classic or BigTIFF, OME-TIFF, slides in TIFF form (SVS); the first series is taken, and an
    alpha channel left out. Zarr: an array, or the first image of an OME-NGFF group, format 2 or 3. Axes: YX, YXC, YXS,
    CYX, SYX; others only with length 1. A zarr array without names of axes is YX, or has 1, 3 or 4 channels.

    Args:
        path: the file or folder.
        level: 0 for full resolution, 1 for the next smaller image of the pyramid, and so on.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: not an image of these kinds, no such level, axes or colours that are not handled.
    """
    path = Path(path)
    if path.is_dir():
        return _open_zarr(path, level)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    try:
        file = tifffile.TiffFile(path)
    except tifffile.TiffFileError as error:
        raise ValueError(f"{path}: neither a TIFF file nor a zarr folder ({error}).") from error
    try:
        return _open_tiff(file, path, level)
    except BaseException:
        file.close()
        raise


def _open_tiff(file: tifffile.TiffFile, path: Path, level: int) -> LargeImage:
    levels = file.series[0].levels
    _check_level(path, level, len(levels))
    page = levels[level].keyframe
    kind = getattr(page.photometric, "name", str(page.photometric))
    is_jpeg = getattr(page.compression, "name", "") in ("JPEG", "OJPEG")
    if kind not in _SAMPLES or (kind == "YCBCR" and not is_jpeg):  # of YCbCr, only JPEG is decoded to RGB
        raise ValueError(f"{path}: photometric interpretation is {kind}, expected MINISBLACK, RGB or YCBCR in JPEG.")
    size = tiff_pixel_size_um(file)
    if size is not None:
        full, this = (dict(zip(of.axes, of.shape, strict=True)) for of in (levels[0], levels[level]))
        size = (size[0] * full["Y"] / this["Y"], size[1] * full["X"] / this["X"])
    stat = path.stat()
    with path.open("rb") as stream:
        header = stream.read(_HEADER_BYTES) + f"{stat.st_size} {stat.st_mtime_ns}".encode()
    axes = levels[level].axes
    return LargeImage(
        zarr.open_array(levels[level].aszarr(), mode="r"),
        axes,
        name=str(path),
        channels=_SAMPLES[kind] if "S" in axes else None,
        pixel_size_um=size,
        fingerprint=hashlib.sha256(header).hexdigest(),
        file=file,
    )


def _open_zarr(path: Path, level: int) -> LargeImage:
    try:
        node = zarr.open(path, mode="r")
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: the folder is no zarr array or group ({error}).") from error
    size = None
    if isinstance(node, zarr.Array):
        _check_level(path, level, 1)
        array, axes, folder = node, _axes_of(path, node), path
    else:
        attributes: dict[str, Any] = dict(node.attrs)
        images = attributes.get("ome", attributes).get("multiscales")
        if not images or not isinstance(images[0].get("axes", [None])[0], Mapping):
            raise ValueError(f"{path}: the zarr group has no multiscales metadata with named axes (OME-NGFF 0.4, 0.5).")
        _check_level(path, level, len(images[0]["datasets"]))
        dataset = images[0]["datasets"][level]
        folder = path / dataset["path"]
        array = zarr.open_array(folder, mode="r")
        axes = "".join(axis["name"][:1].upper() for axis in images[0]["axes"])
        size = _ngff_pixel_size(images[0]["axes"], dataset)
    files = [p for at in (path, folder) for p in sorted(at.iterdir()) if p.name in ("zarr.json", ".zarray", ".zattrs")]
    digest = hashlib.sha256()
    for found in files:
        digest.update(found.read_bytes() + str(found.stat().st_mtime_ns).encode())
    return LargeImage(array, axes, name=str(path), pixel_size_um=size, fingerprint=digest.hexdigest())


def _axes_of(path: Path, array: zarr.Array) -> str:
    """Axes of a plain zarr array, from its own names or from its shape."""
    names = getattr(array.metadata, "dimension_names", None)
    if names and all(names):
        return "".join(name[:1].upper() for name in names)
    if array.ndim == 2:
        return "YX"
    fitting = [axes for axes, at in (("YXC", -1), ("CYX", 0)) if array.ndim == 3 and array.shape[at] in (1, 3, 4)]
    if len(fitting) != 1:
        raise ValueError(f"{path}: shape is {array.shape} and the axes have no names: expected YX, YXC or CYX.")
    return fitting[0]


def _ngff_pixel_size(axes: list[Mapping[str, Any]], dataset: Mapping[str, Any]) -> PixelSize | None:
    """Pixel height and width in µm from the axes and the scale of one level."""
    scale = next((t["scale"] for t in dataset.get("coordinateTransformations", []) if t["type"] == "scale"), None)
    if scale is None:
        return None
    found = {a["name"]: s * UM_PER_UNIT.get(a.get("unit", ""), 0) for a, s in zip(axes, scale, strict=True)}
    return (found["y"], found["x"]) if min(found.get("y", 0), found.get("x", 0)) > 0 else None


def _check_level(path: Path, level: int, count: int) -> None:
    if not 0 <= level < count:
        raise ValueError(f"{path}: level is {level}, the image has {count} (0 to {count - 1}).")
