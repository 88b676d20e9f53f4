"""An image too large for the memory, read region by region."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType

import numpy as np
import tifffile
import zarr

from clinbundles.transforms.readers.pixel_size import PixelSize


class LargeImage:
    """A two-dimensional image of any size; ``read`` gives one region of it as (C, h, w) and decodes no more than that.

    Use ``open_large_image``; a context manager that closes the file.

    Args:
        array: the pixels, a zarr array.
        axes: its axes, one letter each: Y and X, at most one of C and S for channels, and any others of length 1.
        name: what messages call the image.
        channels: how many of the channels to read, None for all of them.
        pixel_size_um: height and width of a pixel in micrometers, None where the file does not tell.
        origin_um: row and column of the first pixel's middle in micrometers, None where the file does not tell.
        fingerprint: changes when the file does.
        place: which series and level of the file it is, "" where there is one.
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
        origin_um: tuple[float, float] | None = None,
        fingerprint: str = "",
        place: str = "",
        file: tifffile.TiffFile | None = None,
    ) -> None:
        if len(axes) != array.ndim:
            raise ValueError(f"{name}: axes are {axes}, the array has shape {array.shape}.")
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
        self.name, self.place, self.fingerprint = name, place, fingerprint
        self.pixel_size_um, self.origin_um = pixel_size_um, origin_um

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


def check_level(path: Path, level: int, count: int, *, of: str = "the image") -> None:
    """Refuse a level that a pyramid does not have."""
    if not 0 <= level < count:
        raise ValueError(f"{path}: level is {level}, {of} has {count} (0 to {count - 1}).")
