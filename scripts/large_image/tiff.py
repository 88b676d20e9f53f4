"""TIFF files as large images: which series of the file, and which level of its pyramid, whatever the pyramid's kind."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import tifffile
import zarr

from clinbundles.transforms.readers.pixel_size import PixelSize, tiff_pixel_size_um

from .image import LargeImage, check_level

_HEADER_BYTES = 65536
_SAMPLES = {"MINISBLACK": 1, "RGB": 3, "YCBCR": 3}  # what lies behind them is an alpha channel
_ALPHA = (1, 2)
_ORIENTATION_TAG = 274
_PLAIN_KINDS = ("generic", "uniform", "shaped")  # series that no vendor's metadata tells apart
Level = tuple[tifffile.TiffPageSeries, int]  # a series and the level in its own pyramid


def open_tiff(path: Path, *, level: int = 0, series: int | None = None) -> LargeImage:
    """Open one level of one series of a TIFF file; nothing of it is decoded yet.

    Args:
        path: the file.
        level: 0 for full resolution. Levels are sub-images (SubIFDs), pages of reduced size, or series of their own
            whose sides are halved again and again.
        series: number of the series; None for the one with the largest plane.

    Raises:
        ValueError: not a TIFF file, no such series or level, several largest series, turned or mirrored pixels, colours
            or axes that are not handled.
    """
    try:
        file = tifffile.TiffFile(path)
    except (tifffile.TiffFileError, struct.error) as error:  # the second for a file of a few bytes
        raise ValueError(f"{path}: neither a TIFF file nor a zarr folder ({error}).") from error
    try:
        return _open_level(file, path, level, series)
    except BaseException:
        file.close()
        raise


def _open_level(file: tifffile.TiffFile, path: Path, level: int, series: int | None) -> LargeImage:
    number = _series_number(file, path, series)
    levels = _levels(file, number)
    check_level(path, level, len(levels), of=f"series {number}" if len(file.series) > 1 else "the image")
    owner, own_level = levels[level]
    plane = owner.levels[own_level]
    for page in (owner.keyframe, plane.keyframe):
        _refuse_other_pixels(path, page)
    _refuse_channel_stack(path, plane, kind=owner.kind)
    stat = path.stat()
    with path.open("rb") as stream:
        header = stream.read(_HEADER_BYTES) + f"{stat.st_size} {stat.st_mtime_ns}".encode()
    return LargeImage(
        zarr.open_array(owner.aszarr(level=own_level), mode="r"),
        plane.axes,
        name=str(path),
        channels=_SAMPLES[_colours(plane.keyframe)] if "S" in plane.axes else None,
        pixel_size_um=_pixel_size_um(file, number, plane),
        fingerprint=hashlib.sha256(header).hexdigest(),
        place=_place(file, number, level=level, n_levels=len(levels)),
        file=file,
    )


def _series_number(file: tifffile.TiffFile, path: Path, number: int | None) -> int:
    """Return the number of the series asked for, or of the one with the largest plane."""
    count = len(file.series)
    if number is not None:
        if not 0 <= number < count:
            raise ValueError(f"{path}: series is {number}, the file has {count} (0 to {count - 1}).")
        return number
    areas = [height * width for height, width in map(_plane_size, file.series)]
    largest = [i for i, area in enumerate(areas) if area == max(areas)]
    if not largest:
        raise ValueError(f"{path}: the TIFF file holds no image.")
    if len(largest) > 1:
        height, width = _plane_size(file.series[largest[0]])
        numbers = f"{', '.join(map(str, largest[:-1]))} and {largest[-1]}"
        raise ValueError(f"{path}: series {numbers} are equally large, {height} x {width} px: choose one by --series.")
    return largest[0]


def _levels(file: tifffile.TiffFile, number: int) -> list[Level]:
    """List the levels of a series; one without any of its own has those series that are its halved copies."""
    full = file.series[number]
    levels: list[Level] = [(full, k) for k in range(len(full.levels))]
    if len(levels) == 1 and full.kind in _PLAIN_KINDS:
        halved = [s for s in file.series if s is not full and _is_halved(s, full)]
        levels += [(s, 0) for s in sorted(halved, key=_plane_size, reverse=True)]
    return levels


def _is_halved(small: tifffile.TiffPageSeries, full: tifffile.TiffPageSeries) -> bool:
    """Tell whether the sides of a series are those of another, halved once or more and rounded either way."""
    if len(small.levels) > 1 or (small.axes, small.dtype) != (full.axes, full.dtype):
        return False
    pairs = list(zip(_plane_size(full), _plane_size(small), strict=True))
    factors = (2**k for k in range(1, max(_plane_size(full)).bit_length()))
    return any(all(abs(side - whole / factor) < 1 for whole, side in pairs) for factor in factors)


def _plane_size(series: tifffile.TiffPageSeries) -> tuple[int, int]:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    return sizes.get("Y", 1), sizes.get("X", 1)


def _pixel_size_um(file: tifffile.TiffFile, number: int, plane: tifffile.TiffPageSeries) -> PixelSize | None:
    size = tiff_pixel_size_um(file, number)
    if size is None:
        return None
    full, this = _plane_size(file.series[number]), _plane_size(plane)
    return size[0] * (full[0] / this[0]), size[1] * (full[1] / this[1])


def _place(file: tifffile.TiffFile, number: int, *, level: int, n_levels: int) -> str:
    """Say which of several series and levels was taken; "" where there is no choice."""
    if len(file.series) == n_levels == 1:
        return ""
    name = f" ({file.series[number].name})" if file.series[number].name else ""
    return f"series {number}{name} of {len(file.series)}, level {level} of {n_levels}"


def _colours(page: tifffile.TiffPage) -> str:
    return getattr(page.photometric, "name", str(page.photometric))


def _refuse_other_pixels(path: Path, page: tifffile.TiffPage) -> None:
    """Refuse pixels that are no plain grey values or RGB, upright."""
    kind = _colours(page)
    is_jpeg = getattr(page.compression, "name", "") in ("JPEG", "OJPEG")
    if kind not in _SAMPLES or (kind == "YCBCR" and not is_jpeg):  # of YCbCr, only JPEG is decoded to RGB
        raise ValueError(f"{path}: photometric interpretation is {kind}, expected MINISBLACK, RGB or YCBCR in JPEG.")
    orientation = int(page.tags.valueof(_ORIENTATION_TAG, 1))
    if orientation != 1:
        raise ValueError(
            f"{path}: the tag Orientation is {orientation}, so the pixels are stored turned or mirrored: store them "
            "upright, with Orientation 1."
        )
    if page.bitspersample < 8:
        raise ValueError(f"{path}: BitsPerSample is {page.bitspersample}, expected 8 or more.")
    more = page.samplesperpixel - _SAMPLES[kind]
    if kind == "MINISBLACK" and more and not all(int(extra) in _ALPHA for extra in page.extrasamples or (0,)):
        raise ValueError(
            f"{path}: SamplesPerPixel is {page.samplesperpixel} in an image of grey values, and what is stored beside "
            "them is no alpha channel."
        )


def _refuse_channel_stack(path: Path, plane: tifffile.TiffPageSeries, *, kind: str) -> None:
    """Refuse channels that a microscope's file keeps apart: they are stains, and no red, green and blue."""
    count = dict(zip(plane.axes, plane.shape, strict=True)).get("C", 1)
    if count > 1 and kind not in _PLAIN_KINDS:
        raise ValueError(
            f"{path}: axes are {plane.axes} with shape {plane.shape}, a stack of {count} channels of one sample each: "
            "expected YX, or RGB pixels (YXS)."
        )
