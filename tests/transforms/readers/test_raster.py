import gzip
import io
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from clinbundles.transforms.readers.raster import check_finite, is_white_zero, open_image, read_raster

RAMP = np.arange(24 * 40, dtype=np.uint16).reshape(24, 40) * 4 + 7  # needs 12 bits, and every pixel is another
DEEP = np.stack([RAMP, RAMP + 1000, 65535 - RAMP], axis=-1)
PLAIN = (DEEP >> 8).astype(np.uint8)
OPAQUE = np.full((24, 40, 1), 65535, dtype=np.uint16)


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _jpeg2000(values: np.ndarray, bits: int) -> bytes:
    return imagecodecs.jpeg2k_encode(values, bitspersample=bits, reversible=True, level=0)


@pytest.mark.parametrize(
    ("name", "encode"),
    [
        ("a.png", imagecodecs.png_encode),
        ("alpha.png", lambda deep: imagecodecs.png_encode(np.concatenate([deep, OPAQUE], axis=-1))),
        ("a.jp2", lambda deep: _jpeg2000(deep, 16)),
    ],
)
def test_colours_of_16_bits_keep_all_of_them(tmp_path: Path, name: str, encode) -> None:
    np.testing.assert_array_equal(read_raster(_write(tmp_path / name, encode(DEEP))), DEEP)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd"])
def test_tiffs_of_16_bits_in_colour_keep_all_of_them(tmp_path: Path, planar: str, compression: str | None) -> None:
    pixels = DEEP if planar == "contig" else np.moveaxis(DEEP, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", planarconfig=planar, compression=compression)
    np.testing.assert_array_equal(read_raster(tmp_path / "a.tif"), DEEP)


def test_grey_with_alpha_of_16_bits_is_its_grey(tmp_path: Path) -> None:
    _write(tmp_path / "a.png", imagecodecs.png_encode(np.stack([RAMP, OPAQUE[..., 0]], axis=-1)))
    np.testing.assert_array_equal(read_raster(tmp_path / "a.png"), RAMP)


def test_grey_of_12_bits_is_not_scaled(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jp2", _jpeg2000(RAMP, 12))
    np.testing.assert_array_equal(read_raster(path), RAMP)


@pytest.mark.parametrize("kind", ["int8", "float32", "uint32"])
def test_numbers_of_other_kinds_in_a_tiff_are_those_stored(tmp_path: Path, kind: str) -> None:
    values = np.stack([RAMP % 200, RAMP % 90, RAMP % 60], axis=-1).astype(kind) - (100 if kind == "int8" else 0)
    tifffile.imwrite(tmp_path / "a.tif", values.astype(kind), photometric="rgb")
    stored = read_raster(tmp_path / "a.tif")
    np.testing.assert_array_equal(stored, values)
    tifffile.imwrite(tmp_path / "grey.tif", values[..., 0].astype(kind), photometric="minisblack")
    np.testing.assert_array_equal(read_raster(tmp_path / "grey.tif"), values[..., 0])


@pytest.mark.parametrize("compression", ["jpeg2000", "webp", "zstd", "lerc", "jpeg"])
def test_tiffs_of_compressions_beyond_pillow_are_read(tmp_path: Path, compression: str) -> None:
    smooth = np.stack([RAMP >> 4] * 3, axis=-1).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", smooth, photometric="rgb", compression=compression)
    assert np.abs(np.asarray(open_image(tmp_path / "a.tif")).astype(int) - smooth).max() <= 3


def test_open_image_refuses_colours_deeper_than_8_bits(tmp_path: Path) -> None:
    _write(tmp_path / "a.png", imagecodecs.png_encode(DEEP))
    with pytest.raises(ValueError, match=r"a\.png: uint16 of shape \(24, 40, 3\) is deeper than 8 bits a channel"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif", "deep.tif", "deep.png", "a.webp"])
def test_images_are_turned_as_their_orientation_says(tmp_path: Path, name: str, turn: int) -> None:
    upright = DEEP if name.startswith("deep") else PLAIN
    # What a camera stores that is turned: the inverse of what a viewer does.
    rows_first = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    stored, exif = np.ascontiguousarray(rows_first[turn]), Image.Exif()
    exif[0x0112] = turn
    if name.endswith("tif"):
        tifffile.imwrite(tmp_path / name, stored, photometric="rgb", extratags=[("Orientation", 3, 1, turn, True)])
    elif name == "deep.png":
        content, chunk = imagecodecs.png_encode(stored), b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
        chunk = (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        _write(tmp_path / name, content[:33] + chunk + content[33:])
    else:
        Image.fromarray(stored).save(tmp_path / name, exif=exif, lossless=True)
    np.testing.assert_array_equal(np.asarray(read_raster(tmp_path / name)), upright)


def test_a_photograph_is_turned_before_and_after_a_smaller_decoding(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.repeat(np.repeat(PLAIN, 8, axis=0), 8, axis=1))
    image.rotate(90, expand=True).save(tmp_path / "a.jpg", exif=exif)
    for size in (None, 50):
        decoded = read_raster(tmp_path / "a.jpg", decode_size=size)
        assert isinstance(decoded, Image.Image)
        small = decoded.resize((40, 24), Image.Resampling.BOX)
        assert np.abs(np.asarray(small).astype(int) - PLAIN).mean() < 8


def test_files_broken_by_their_own_checksum_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(PLAIN).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[content.index(b"IDAT") + 40] ^= 1
    _write(tmp_path / "a.png", content)
    packed = bytearray(gzip.compress(buffer.getvalue()))
    packed[-6] ^= 1
    _write(tmp_path / "b.png.gz", packed)
    tifffile.imwrite(tmp_path / "c.tif", PLAIN, photometric="rgb", compression="zlib")
    content = bytearray((tmp_path / "c.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "c.tif") as file:
        page = file.pages.first
        content[page.dataoffsets[0] + page.databytecounts[0] - 1] ^= 1
    _write(tmp_path / "c.tif", content)
    for name, fault in {"a.png": "checksum", "b.png.gz": "CRC", "c.tif": "incorrect data check"}.items():
        with pytest.raises(ValueError, match=f"{name}: not a readable image file .*{fault}"):
            read_raster(tmp_path / name)


def test_stacks_films_and_channels_that_lie_apart_are_refused(tmp_path: Path) -> None:
    stack = np.stack([RAMP, RAMP + 1, RAMP + 2])
    tifffile.imwrite(tmp_path / "composite.tif", stack, imagej=True, metadata={"axes": "CYX"})
    tifffile.imwrite(tmp_path / "depth.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "channels.ome.tif", stack, metadata={"axes": "CYX"}, photometric="minisblack")
    tifffile.imwrite(tmp_path / "pages.tif", stack, photometric="minisblack")
    with tifffile.TiffWriter(tmp_path / "growing.tif") as writer:
        for values in (RAMP[:12], RAMP):
            writer.write(values, photometric="minisblack")
    frames = [Image.fromarray(PLAIN), Image.fromarray(PLAIN[::-1])]
    for name in ("a.gif", "a.png", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    faults = {
        "composite.tif": "3 planes",
        "depth.tif": "3 planes",
        "channels.ome.tif": "3 planes",
        "pages.tif": "3 planes",
        "growing.tif": "2 images, of which the first is not the largest",
        "a.gif": "2 frames",
        "a.png": "2 frames",
        "a.webp": "2 frames",
    }
    for name, fault in faults.items():
        with pytest.raises(ValueError, match=f"{name}: .*{fault}"):
            read_raster(tmp_path / name)


def test_a_portable_map_that_pillow_would_scale_is_refused(tmp_path: Path) -> None:
    grey = _write(tmp_path / "full.pgm", b"P5 # of 16 bits\n40 24 65535\n" + RAMP.astype(">u2").tobytes())
    np.testing.assert_array_equal(np.asarray(read_raster(grey)), RAMP)
    for name, head in {"a.pgm": b"P5 40 24 4095\n", "a.ppm": b"P6 40 8 65535\n"}.items():
        _write(tmp_path / name, head + RAMP.astype(">u2").tobytes())
        with pytest.raises(ValueError, match=f"{name}: .*a PPM of values to"):
            read_raster(tmp_path / name)


def test_white_as_zero_is_told_where_pillow_leaves_it(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "deep.tif", RAMP, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "plain.tif", PLAIN[..., 0], photometric="miniswhite")
    assert is_white_zero(open_image(tmp_path / "deep.tif"))
    assert not is_white_zero(open_image(tmp_path / "plain.tif"))
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "plain.tif")), 255 - PLAIN[..., 0])


def test_numbers_that_are_not_finite_are_found(tmp_path: Path) -> None:
    values = np.ones((6, 9, 3))
    check_finite(tmp_path / "a.tif", values)
    values[2:5, 7] = np.nan
    with pytest.raises(ValueError, match=r"a\.tif: 3 pixels are not finite numbers, in rows 2 to 4 and columns 7 to 7"):
        check_finite(tmp_path / "a.tif", values)
