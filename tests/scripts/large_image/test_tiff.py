from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from clinbundles.scripts.large_image.opening import open_large_image
from clinbundles.scripts.large_image.tiff import open_tiff

PIXELS = np.random.default_rng(0).integers(0, 255, (150, 170, 3), dtype=np.uint8)


def region(path: Path, level: int = 0) -> np.ndarray:
    with open_large_image(path, level=level) as image:
        return image.read(70, 90, height=20, width=30)


def expected(pixels: np.ndarray) -> np.ndarray:
    return pixels[70:90, 90:120].transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (PIXELS, {"tile": (64, 64), "compression": "deflate"}),
        (PIXELS, {"rowsperstrip": 16, "compression": "lzw"}),
        (PIXELS, {"rowsperstrip": 16, "bigtiff": True}),
        (PIXELS.transpose(2, 0, 1), {"tile": (64, 64), "planarconfig": "separate"}),
        (PIXELS.transpose(2, 0, 1), {"tile": (64, 64), "photometric": "minisblack", "metadata": {"axes": "CYX"}}),
        (np.dstack([PIXELS, np.full((150, 170), 255, np.uint8)]), {"tile": (64, 64), "extrasamples": ["unassalpha"]}),
    ],
    ids=["tiled", "strips", "BigTIFF", "planar", "CYX", "alpha"],
)
def test_a_region_of_a_tiff_is_what_was_written_there(pixels: np.ndarray, options: dict, tmp_path: Path) -> None:
    options = {"photometric": "rgb"} | options
    tifffile.imwrite(tmp_path / "image.tif", pixels, **options)
    np.testing.assert_array_equal(region(tmp_path / "image.tif"), expected(PIXELS))


def test_jpeg_tiles_come_out_in_rgb(tmp_path: Path) -> None:
    flat = np.full((150, 170, 3), (200, 100, 50), np.uint8)
    tifffile.imwrite(tmp_path / "slide.tif", flat, tile=(64, 64), compression="jpeg", photometric="rgb")
    assert np.abs(region(tmp_path / "slide.tif").mean(axis=(1, 2)) - (200, 100, 50)).max() < 3


def test_levels_of_a_pyramid_are_chosen_and_the_pixel_size_grows(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "slide.tif") as writer:
        options: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
        writer.write(
            np.repeat(np.repeat(PIXELS, 2, 0), 2, 1), subifds=1, resolution=(2e4, 4e4), resolutionunit=3, **options
        )
        writer.write(PIXELS, subfiletype=1, **options)
    np.testing.assert_array_equal(region(tmp_path / "slide.tif", level=1), expected(PIXELS))
    with open_large_image(tmp_path / "slide.tif", level=1) as image:
        assert image.shape == (3, 150, 170)
        assert image.pixel_size_um == pytest.approx((0.5, 1.0)), "10 000 µm / 40 000 rows, twice at level 1"
    with pytest.raises(ValueError, match=r"slide.tif: level is 2, the image has 2 \(0 to 1\)"):
        open_large_image(tmp_path / "slide.tif", level=2)


def test_pixel_sizes_are_read_from_ome_xml_and_screen_resolutions_are_not_believed(tmp_path: Path) -> None:
    metadata = {"axes": "YX", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "a.ome.tif", PIXELS[..., 0], tile=(64, 64), metadata=metadata)
    tifffile.imwrite(tmp_path / "b.tif", PIXELS[..., 0], tile=(64, 64), resolution=(72, 72), resolutionunit=2)
    with open_large_image(tmp_path / "a.ome.tif") as image:
        assert image.pixel_size_um == pytest.approx((0.5, 0.25))
    with open_large_image(tmp_path / "b.tif") as image:
        assert image.pixel_size_um is None


OPTIONS: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
SVS = "Aperio Image Library v11.2.1\r\n340x300 [0,0 340x300] (64x64) |AppMag = 20|MPP = 0.4990"
FULL = np.repeat(np.repeat(PIXELS, 2, 0), 2, 1)


def write_svs(path: Path) -> Path:
    """Slide, thumbnail, half-size level, label and overview, in the order of a scanner."""
    with tifffile.TiffWriter(path) as writer:
        writer.write(FULL, description=SVS, **OPTIONS)
        writer.write(PIXELS[::2, ::2], description=SVS, **{**OPTIONS, "tile": None})
        writer.write(PIXELS, description=SVS, **OPTIONS)
        for name, kind in (("label", 1), ("macro", 9)):
            writer.write(PIXELS[:40, :50], subfiletype=kind, description=SVS[:30] + name, **{**OPTIONS, "tile": None})
    return path


def write_ome(path: Path) -> Path:
    size = {"PhysicalSizeX": 0.499, "PhysicalSizeY": 0.499}
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(FULL, subifds=1, **{**OPTIONS, "metadata": {"axes": "YXS", **size}})
        writer.write(PIXELS, subfiletype=1, **OPTIONS)
    return path


def write_pages(path: Path, *, reduced: int = 1, metadata: dict | None = None) -> Path:
    more: dict[str, Any] = {"resolution": (1e4 / 0.499,) * 2, "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as writer:
        writer.write(FULL, **{**OPTIONS, "metadata": metadata}, **more)
        writer.write(PIXELS, subfiletype=reduced, **{**OPTIONS, "metadata": metadata})
    return path


PYRAMIDS: dict[str, Callable[[Path], Path]] = {
    "slide.svs": write_svs,
    "subifds.ome.tif": write_ome,
    "reduced_pages.tif": write_pages,
    "plain_pages.tif": lambda path: write_pages(path, reduced=0),
    "series.tif": lambda path: write_pages(path, reduced=0, metadata={}),
}


@pytest.mark.parametrize("name", PYRAMIDS)
def test_every_level_of_every_kind_of_pyramid_is_the_pixels_written_there(name: str, tmp_path: Path) -> None:
    path = PYRAMIDS[name](tmp_path / name)
    for level, pixels in enumerate((FULL, PIXELS)):
        with open_tiff(path, level=level) as image:
            assert image.shape == (3, *pixels.shape[:2])
            np.testing.assert_array_equal(image.read(70, 90, height=20, width=30), expected(pixels))
            assert image.pixel_size_um == pytest.approx((0.499 * 2**level,) * 2)
            assert f"level {level} of 2" in image.place
    with pytest.raises(ValueError, match=r"level is 2, (series 0|the image) has 2 \(0 to 1\)"):
        open_tiff(path, level=2)


def test_the_largest_series_is_taken_and_another_one_by_its_number(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for name, pixels, um in (("overview", PIXELS[:90, :120], 8), ("tissue", PIXELS, 0.5)):
            options = {**OPTIONS, "metadata": {"axes": "YXS", "Name": name, "PhysicalSizeX": um, "PhysicalSizeY": um}}
            writer.write(pixels, **options)
    with open_tiff(tmp_path / "a.ome.tif") as image:
        assert (image.shape, image.pixel_size_um) == ((3, 150, 170), (0.5, 0.5))
        assert image.place == "series 1 (tissue) of 2, level 0 of 1"
    with open_tiff(tmp_path / "a.ome.tif", series=0) as image:
        assert (image.shape, image.pixel_size_um) == ((3, 90, 120), (8, 8))
    with pytest.raises(ValueError, match=r"a.ome.tif: series is 2, the file has 2 \(0 to 1\)"):
        open_tiff(tmp_path / "a.ome.tif", series=2)
    with pytest.raises(ValueError, match=r"level is 1, series 1 has 1 \(0 to 0\)"):
        open_tiff(tmp_path / "a.ome.tif", level=1)


def test_the_thumbnail_of_a_slide_does_not_have_its_pixel_size(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "slide.svs")
    with open_tiff(path, series=1) as image:
        assert (image.shape, image.pixel_size_um) == ((3, 75, 85), None)


def test_several_largest_series_are_no_choice(tmp_path: Path) -> None:
    for k in range(2):
        tifffile.imwrite(tmp_path / "two.tif", PIXELS, tile=(64, 64), photometric="rgb", append=k > 0)
    with pytest.raises(ValueError, match=r"two.tif: series 0 and 1 are equally large, 150 x 170 px: choose one by --"):
        open_tiff(tmp_path / "two.tif")
    with open_tiff(tmp_path / "two.tif", series=1) as image:
        assert image.shape == (3, 150, 170)


def test_one_series_that_is_no_halved_copy_is_no_level(tmp_path: Path) -> None:
    for pixels in (PIXELS, PIXELS[:75, :60]):
        tifffile.imwrite(tmp_path / "two.tif", pixels, tile=(64, 64), photometric="rgb", append=len(pixels) < 150)
    with pytest.raises(ValueError, match=r"two.tif: level is 1, series 0 has 1 \(0 to 0\)"):
        open_tiff(tmp_path / "two.tif", level=1)


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_turned_and_mirrored_pixels_are_refused(orientation: int, tmp_path: Path) -> None:
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "t.tif", PIXELS, tile=(64, 64), photometric="rgb", extratags=tags)
    with pytest.raises(
        ValueError, match=f"t.tif: the tag Orientation is {orientation}, so the pixels are stored turned"
    ):
        open_tiff(tmp_path / "t.tif")
    tifffile.imwrite(tmp_path / "u.tif", PIXELS, photometric="rgb", extratags=[(274, "H", 1, 1, True)])
    np.testing.assert_array_equal(region(tmp_path / "u.tif"), expected(PIXELS))


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "CYX", "TZCYX"])
@pytest.mark.parametrize("program", ["imagej", "ome"])
def test_stacks_are_refused_with_their_axes_and_never_their_first_plane_read(
    axes: str, program: str, tmp_path: Path
) -> None:
    stack = PIXELS.transpose(2, 0, 1)
    stack = np.stack([stack, stack])[:, None].repeat(2, 1) if axes == "TZCYX" else stack
    path = tmp_path / ("a.ome.tif" if program == "ome" else "a.tif")
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": axes}, **{program: True})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"axes are {axes} with shape .*expected YX"):
        open_tiff(path)


def test_pages_and_samples_without_a_meaning_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "pages.tif", PIXELS.transpose(2, 0, 1), photometric="minisblack", metadata=None)
    with pytest.raises(ValueError, match=r"pages.tif: axes are [A-Z]YX with shape \(3, 150, 170\)"):
        open_tiff(tmp_path / "pages.tif")
    tifffile.imwrite(tmp_path / "three.tif", PIXELS, photometric="minisblack", planarconfig="contig", metadata=None)
    with pytest.raises(ValueError, match=r"three.tif: SamplesPerPixel is 3 in an image of grey values"):
        open_tiff(tmp_path / "three.tif")
    grey = PIXELS[..., :2]
    tifffile.imwrite(tmp_path / "alpha.tif", grey, photometric="minisblack", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(region(tmp_path / "alpha.tif"), expected(PIXELS)[:1])


def test_16_bit_colours_keep_their_values_at_every_level(tmp_path: Path) -> None:
    deep = FULL.astype(np.uint16) * 200
    with tifffile.TiffWriter(tmp_path / "d.tif") as writer:
        writer.write(deep, subifds=1, **OPTIONS)
        writer.write(deep[::2, ::2], subfiletype=1, **OPTIONS)
    for level, pixels in enumerate((deep, deep[::2, ::2])):
        np.testing.assert_array_equal(region(tmp_path / "d.tif", level=level), expected(pixels))
