from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from clinbundles.scripts.large_image.pyramid import (
    add_levels,
    create_level,
    halve,
    is_own_tiff,
    ngff_metadata,
    write_tiff,
)


def filled(folder: Path, plane: np.ndarray) -> zarr.Group:
    group = zarr.create_group(folder)
    create_level(group, "0", plane.shape, chunk=64, shard=128)[:] = plane
    return group


def test_one_foreground_pixel_survives_halving_by_maximum_and_fades_by_mean() -> None:
    plane = np.zeros((5, 7), np.uint8)
    plane[4, 6] = plane[0, 1] = 100
    assert halve(plane, reduce="max").tolist() == [[100, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 100]]
    assert halve(plane, reduce="mean").tolist() == [[25, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 100]], "the edge is repeated"


def test_levels_built_shard_by_shard_equal_those_of_the_whole_plane(tmp_path: Path) -> None:
    plane = np.random.default_rng(0).integers(0, 255, (1301, 1130), dtype=np.uint8)
    for reduce in ("max", "mean"):
        group = filled(tmp_path / reduce, plane)
        assert add_levels(group, reduce=reduce) == 3
        halved = halve(plane, reduce=reduce)
        np.testing.assert_array_equal(group["1"][:], halved)  # type: ignore[index]
        np.testing.assert_array_equal(group["2"][:], halve(halved, reduce=reduce))  # type: ignore[index]


@pytest.mark.parametrize("origin_um", [None, (10.0, 20.0)])
def test_the_metadata_puts_the_middle_of_each_level_at_the_same_place(origin_um: tuple[float, float] | None) -> None:
    ome = ngff_metadata(3, pixel_size_um=(0.5, 0.25), origin_um=origin_um, reduce="max", is_label=True)
    assert ome["version"] == "0.5"
    (image,) = ome["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["y", "x"]
    assert {axis["unit"] for axis in image["axes"]} == {"micrometer"}
    for level, dataset in enumerate(image["datasets"]):
        steps = {t["type"]: t[t["type"]] for t in dataset["coordinateTransformations"]}
        begins = np.array(steps.get("translation", [0, 0])) - np.array(steps["scale"]) / 2
        np.testing.assert_allclose(begins - (origin_um or (0, 0)), (-0.25, -0.125), err_msg="the image's corner")
        np.testing.assert_allclose(steps["scale"], np.array((0.5, 0.25)) * 2**level)
    assert "unit" not in ngff_metadata(1, pixel_size_um=None, reduce="max", is_label=False)["multiscales"][0]["axes"][0]


def test_the_tiff_is_tiled_pyramidal_and_tells_nothing_but_the_pixel_size_and_the_command(tmp_path: Path) -> None:
    plane = (np.random.default_rng(0).random((700, 650)) < 0.01).astype(np.uint8)
    group = filled(tmp_path / "m.zarr", plane)
    add_levels(group, reduce="max")
    write_tiff(group, tmp_path / "m.tif", pixel_size_um=(0.5, 0.25))
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["m.tif"], "the neighbour was renamed"
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        levels = file.series[0].levels
        np.testing.assert_array_equal(levels[0].asarray(), plane)
        np.testing.assert_array_equal(levels[1].asarray(), halve(plane, reduce="max"))
        page = file.pages[0]
        assert file.is_bigtiff
        assert page.is_tiled  # type: ignore[union-attr]
        np.testing.assert_allclose(page.get_resolution("MICROMETER"), (4, 2))  # type: ignore[union-attr]
        names = {tag.name for tag in page.tags}  # type: ignore[union-attr]
    assert not names & {"ImageDescription", "DateTime", "Artist", "HostComputer", "DocumentName"}


def test_the_pixels_of_each_level_of_the_tiff_are_twice_as_large_as_those_before(tmp_path: Path) -> None:
    group = filled(tmp_path / "m.zarr", np.zeros((1100, 1300), np.uint8))
    n_levels = add_levels(group, reduce="max")
    assert n_levels > 2
    write_tiff(group, tmp_path / "m.tif", pixel_size_um=(0.5, 0.25))
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        for number, level in enumerate(file.series[0].levels):
            per_um_x, per_um_y = level.keyframe.get_resolution("MICROMETER")
            np.testing.assert_allclose((1 / per_um_y, 1 / per_um_x), (0.5 * 2**number, 0.25 * 2**number), rtol=1e-6)


def test_a_tiff_of_this_command_is_told_from_others(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "mask.zarr")
    group.create_array("0", data=np.zeros((64, 64), np.uint8), chunks=(64, 64))
    write_tiff(group, tmp_path / "own.tif", pixel_size_um=None)
    tifffile.imwrite(tmp_path / "other.tif", np.zeros((64, 64), np.uint8))
    (tmp_path / "text.tif").write_text("no TIFF")
    assert [is_own_tiff(tmp_path / f"{name}.tif") for name in ("own", "other", "text", "absent")] == [
        True,
        *[False] * 3,
    ]
