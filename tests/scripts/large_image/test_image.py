from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from clinbundles.scripts.large_image.image import LargeImage, open_large_image

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


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_arrays_are_read_by_their_shape_or_their_names(version: int, tmp_path: Path) -> None:
    for name, pixels in {"yxc": PIXELS, "cyx": PIXELS.transpose(2, 0, 1)}.items():
        zarr.create_array(tmp_path / name, data=np.ascontiguousarray(pixels), chunks=(3, 64, 64), zarr_format=version)  # type: ignore[arg-type]
        np.testing.assert_array_equal(region(tmp_path / name), expected(PIXELS))
    zarr.create_array(tmp_path / "two", data=PIXELS[:3], zarr_format=version)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"two: shape is \(3, 170, 3\) and the axes have no names"):
        open_large_image(tmp_path / "two")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_levels_of_an_ome_ngff_group_are_read_without_its_single_time_and_depth(version: str, tmp_path: Path) -> None:
    axes = [{"name": n, "type": "space", "unit": "millimeter"} for n in "tczyx"]
    datasets = [
        {"path": f"s{k}", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1, 2e-3 * 2**k, 1e-3]}]}
        for k in range(2)
    ]
    ome: dict[str, Any] = {"version": version, "multiscales": [{"axes": axes, "datasets": datasets}]}
    group = zarr.create_group(
        tmp_path / "i.zarr",
        zarr_format=2 if version == "0.4" else 3,
        attributes=ome if version == "0.4" else {"ome": ome},
    )
    group.create_array("s1", data=PIXELS.transpose(2, 0, 1)[None, :, None].copy())
    np.testing.assert_array_equal(region(tmp_path / "i.zarr", level=1), expected(PIXELS))
    with open_large_image(tmp_path / "i.zarr", level=1) as image:
        assert image.pixel_size_um == pytest.approx((4.0, 1.0))


def test_what_is_no_plane_image_is_refused_by_name(tmp_path: Path) -> None:
    stack = PIXELS.transpose(2, 0, 1).copy()
    tifffile.imwrite(tmp_path / "z.tif", stack, photometric="minisblack", metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "p.tif", PIXELS[..., 0], colormap=np.zeros((3, 256), np.uint16))
    (tmp_path / "text.tif").write_text("no image")
    (tmp_path / "folder").mkdir()
    zarr.create_group(tmp_path / "group.zarr")
    for name, message in {
        "z.tif": r"z.tif: axes are ZYX with shape \(3, 150, 170\), expected YX",
        "p.tif": "p.tif: photometric interpretation is PALETTE",
        "text.tif": "text.tif: neither a TIFF file nor a zarr folder",
        "folder": "folder: the folder is no zarr array or group",
        "group.zarr": "group.zarr: the zarr group has no multiscales metadata",
    }.items():
        with pytest.raises(ValueError, match=message):
            open_large_image(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"absent.tif: no such file"):
        open_large_image(tmp_path / "absent.tif")


def test_a_broken_tile_is_reported_with_its_place(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "image.tif", PIXELS, tile=(64, 64), compression="deflate", photometric="rgb")
    with tifffile.TiffFile(tmp_path / "image.tif") as file:
        offset = file.pages[0].dataoffsets[4]  # type: ignore[union-attr]
    content = bytearray((tmp_path / "image.tif").read_bytes())
    content[offset : offset + 500] = bytes(500)
    (tmp_path / "image.tif").write_bytes(content)
    with open_large_image(tmp_path / "image.tif") as image:
        with pytest.raises(ValueError, match="rows 70 to 90, columns 90 to 120 cannot be read"):
            image.read(70, 90, height=20, width=30)
        assert image.read(0, 0, height=9, width=9).shape == (3, 9, 9), "the other tiles are whole"


def test_the_fingerprint_changes_with_the_file(tmp_path: Path) -> None:
    seen = set()
    for value in (0, 1):
        tifffile.imwrite(tmp_path / "image.tif", PIXELS + np.uint8(value), tile=(64, 64), photometric="rgb")
        with open_large_image(tmp_path / "image.tif") as image:
            assert isinstance(image, LargeImage)
            seen.add(image.fingerprint)
    assert len(seen) == 2
