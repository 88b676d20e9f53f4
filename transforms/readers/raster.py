"""Raster image files decoded to all that they hold: every bit of depth, the turn of their EXIF orientation, one frame.

Pillow decodes what it can hold; TIFF beyond that is decoded by tifffile, and deep PNG and JPEG 2000 by imagecodecs. No
torch is needed here.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageOps, UnidentifiedImageError
from tifffile import COMPRESSION, PHOTOMETRIC, PLANARCONFIG

from .codestream import largest_codestream
from .limits import JPEG_2000_PIXEL_BYTES, TooLargeError, check_file, check_picture, gunzip, inflated_size, sample_bytes

PIL_8BIT_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "PPM", "WEBP", "JPEG2000", "AVIF")
_TURN, _PHOTOMETRIC = "Orientation", 262  # of TIFF
_WHITE_IS_ZERO = 0
# A pyramid has a page a level, and no other TIFF of several pages is read.
_MOST_PAGES = 64
_PILLOWS_LIMIT = Image.MAX_IMAGE_PIXELS
# Of TIFF, those that every build of Pillow decodes.
_COMPRESSIONS = (
    "NONE",
    "CCITTRLE",
    "CCITTFAX3",
    "CCITTFAX4",
    "LZW",
    "OJPEG",
    "JPEG",
    "ADOBE_DEFLATE",
    "DEFLATE",
    "PACKBITS",
)
# By EXIF: what brings rows first and left to right. 1 is an image as it is.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def open_image(path: Path, *, decode_size: int | None = None) -> Image.Image:
    """Decode an image file completely, as :func:`read_raster`, where Pillow has a mode that holds it.

    Raises:
        ValueError: as there, or for colours deeper than 8 bits a channel.
    """
    image = read_raster(path, decode_size=decode_size)
    if isinstance(image, np.ndarray):
        raise ValueError(f"{path}: {image.dtype} of shape {image.shape} is deeper than 8 bits a channel.")
    return image


def read_raster(path: Path, *, decode_size: int | None = None) -> Image.Image | np.ndarray:
    """Decode an image file, gzip-compressed or not, completely.

    JPEG, PNG, TIFF, BMP, GIF, PPM, WebP, JPEG 2000 and AVIF, whatever their names. An image is turned as its EXIF or
    TIFF orientation says. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep ``decode_size``
    px. Of a TIFF pyramid the first frame is taken, if it is the largest.

    Returns:
        an image of Pillow, or, where Pillow would drop bits, the stored values: (H, W), or (H, W, 3) in colour without
        an alpha channel.

    Raises:
        ValueError: the file is no such image, broken by its own checksum, holds more than one frame or plane, is of a
            depth that cannot be read, or is larger than the limit (see :mod:`.limits`), by its header, before anything
            is decoded; the message names the file.
    """
    try:
        check_file(path)
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gunzip(path)
        return _decode(path, content, decode_size)
    except TooLargeError:
        raise
    except Exception as error:  # plug-ins and codecs raise types of their own, and name the stream, which says nothing
        reason = "no known format" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        raise ValueError(f"{path}: not a readable image file ({reason or type(error).__name__}).") from error


def is_white_zero(image: Image.Image) -> bool:
    """True for a TIFF deeper than 8 bits that stores white as 0: below that depth Pillow turns it to light on dark."""
    return (_PHOTOMETRIC, _WHITE_IS_ZERO) in getattr(image, "tag_v2", {}).items() and image.mode not in PIL_8BIT_MODES


def check_finite(path: Path, values: np.ndarray) -> None:
    """Refuse numbers (H, W[, C]) that are not finite, and say where they are.

    Raises:
        ValueError: there are some; the message names the file, their number, and the rows and columns that hold them.
    """
    places = ~np.isfinite(values).reshape(*values.shape[:2], -1).all(axis=2)
    if places.any():
        rows, columns = (np.flatnonzero(places.any(axis=axis)) for axis in (1, 0))
        raise ValueError(
            f"{path}: {places.sum()} pixels are not finite numbers, in rows {rows[0]} to {rows[-1]} and columns "
            f"{columns[0]} to {columns[-1]}."
        )


def _decode(path: Path, content: bytes, decode_size: int | None) -> Image.Image | np.ndarray:
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _decode_tiff(path, content)
    with _own_limit(), Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        is_deep = image.mode not in PIL_8BIT_MODES or _is_deep_png(content, image)
        pixel_bytes = len(image.getbands()) * (2 if is_deep else 1)
        check_picture(
            path, *image.size, pixel_bytes=JPEG_2000_PIXEL_BYTES if image.format == "JPEG2000" else pixel_bytes
        )
        # The second picture of an MPO is another view or a preview of the first.
        if image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) != 1:
            raise ValueError(f"a {image.format} of {frames} frames, expected one")
        if image.format == "PNG":
            with Image.open(io.BytesIO(content), formats=("PNG",)) as again:
                again.verify()  # the checksums, which loading passes over
        turn = image.getexif().get(0x0112, 1)
        if (deep := _deep_values(content, image)) is not None:
            return _UPRIGHT.get(turn, np.asarray)(deep)
        if decode_size is not None:
            image.draft(image.mode, (decode_size, decode_size))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return image


@contextmanager
def _own_limit() -> Iterator[None]:
    """Do without Pillow's limit of pixels, which cannot be raised for one file: ours is looked at instead."""
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = _PILLOWS_LIMIT


def _is_deep_png(content: bytes, image: Image.Image) -> bool:
    return image.format == "PNG" and content[24] == 16


def _deep_values(content: bytes, image: Image.Image) -> np.ndarray | None:
    """Return the stored values of an image of which Pillow would drop bits or scale values, or None."""
    if _is_deep_png(content, image) and image.mode in PIL_8BIT_MODES:
        return _colours(imagecodecs.png_decode(content))
    if image.format == "JPEG2000":
        size = content.index(b"\xff\x51")
        if content[size + 40] & 127 != 7:  # bits of the first channel, less one
            return _colours(imagecodecs.jpeg2k_decode(content))
    if image.format == "AVIF" and content[content.index(b"av1C") + 6] & 0x40:
        raise ValueError("an AVIF deeper than 8 bits a channel")
    if image.format == "PPM":
        highest = int(_without_comments(content[:1000])[3]) if content[:2] in (b"P5", b"P6", b"P2", b"P3") else 255
        if highest > 255 and (highest, content[:2]) != (65535, b"P5"):
            raise ValueError(f"a PPM of values to {highest}, expected to 255, or to 65535 in grey")
    return None


def _without_comments(head: bytes) -> list[bytes]:
    return b"\n".join(line.partition(b"#")[0] for line in head.split(b"\n")).split()


def _colours(values: np.ndarray) -> np.ndarray:
    """Take grey as (H, W) and colours as (H, W, 3), without an alpha channel."""
    if values.ndim == 3:
        values = values[..., : 3 if values.shape[-1] > 2 else 1]
        values = values[..., 0] if values.shape[-1] == 1 else values
    return values


def _decode_tiff(path: Path, content: bytes) -> Image.Image | np.ndarray:
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = _only_page(file)
        pixel_bytes = page.samplesperpixel * sample_bytes(page.bitspersample)
        check_picture(path, page.imagewidth, page.imagelength, pixel_bytes=pixel_bytes)
        check_picture(path, page.tilewidth, page.tilelength, pixel_bytes=pixel_bytes)
        _check_pieces(path, content, page)
        samples, bits = page.samplesperpixel, page.bitspersample
        kind, compression = PHOTOMETRIC(page.photometric).name, COMPRESSION(page.compression).name
        is_plain = bits <= 8 and page.sampleformat in (1, 4)  # not signed
        # Pillow has modes for one deep channel, but none for whole numbers that need 32 bits.
        is_deep_grey = samples == 1 and bits > 8 and (bits, page.sampleformat) != (32, 1)
        if (is_plain or is_deep_grey) and compression in _COMPRESSIONS:
            with _own_limit(), Image.open(io.BytesIO(content), formats=("TIFF",)) as image:
                image.load()
                return image  # turned by Pillow already
        values = page.asarray()
        if kind not in ("MINISBLACK", "RGB") and not (kind == "YCBCR" and is_plain):
            raise ValueError(f"a {kind} TIFF of {bits} bits by {compression}")
        if samples > 1 and page.planarconfig == PLANARCONFIG.SEPARATE:
            values = np.moveaxis(values, 0, -1)
        turn = page.tags.get(_TURN)
        values = _UPRIGHT.get(int(turn.value) if turn else 1, np.asarray)(_colours(values))
        return Image.fromarray(np.ascontiguousarray(values)) if values.dtype == np.uint8 else values


def _only_page(file: tifffile.TiffFile) -> tifffile.TiffPage:
    """Return the one page of a file, or the first of a pyramid; a stack or a frame for each channel is refused."""
    if (pages := len(file.pages)) > _MOST_PAGES:
        raise ValueError(f"a TIFF of {pages} pages, expected one")
    first = file.series[0]
    planes = {axis: length for axis, length in zip(first.axes, first.shape, strict=True) if axis not in "YXS"}
    if (number := int(np.prod(list(planes.values())))) != 1:
        raise ValueError(f"a TIFF of {number} planes (axes {first.axes}), expected one")
    page = file.pages.first
    for other in file.series[1:]:
        if np.prod(other.shape) >= np.prod(first.shape):
            raise ValueError(f"a TIFF of {len(file.series)} images, of which the first is not the largest")
    return page


def _check_pieces(path: Path, content: bytes, page: tifffile.TiffPage) -> None:
    """Refuse strips or tiles that hold more than the page, and deflated ones whose checksum, passed over, is wrong."""
    name = COMPRESSION(page.compression).name
    for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        piece = content[offset : offset + size]
        if name in ("ADOBE_DEFLATE", "DEFLATE"):
            inflated_size(path, piece)
        elif header := largest_codestream(piece):
            check_picture(path, header.columns, header.rows, pixel_bytes=JPEG_2000_PIXEL_BYTES)
