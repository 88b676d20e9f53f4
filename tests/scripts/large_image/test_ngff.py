from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from clinbundles.scripts.large_image.ngff import open_zarr
from clinbundles.scripts.large_image.opening import open_large_image

PIXELS = np.random.default_rng(0).integers(0, 255, (150, 170, 3), dtype=np.uint8)


def region(path: Path, level: int = 0) -> np.ndarray:
    with open_large_image(path, level=level) as image:
        return image.read(70, 90, height=20, width=30)


def expected(pixels: np.ndarray) -> np.ndarray:
    return pixels[70:90, 90:120].transpose(2, 0, 1)


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


SCALE = {"type": "scale", "scale": [1, 0.5, 0.25]}
ONES = {"type": "scale", "scale": [1, 1, 1]}


def write_image(
    path: Path, *, own: list | None = None, shared: list | None = None, unit: str | None = "micrometer", **more: Any
) -> Path:
    """An OME-NGFF 0.4 image (C, Y, X) with transformations of its level and of all levels."""
    axes: list[dict[str, str]] = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", **({"unit": unit} if unit else {})} for name in "yx"]
    dataset: dict[str, Any] = {"path": "0", "coordinateTransformations": [SCALE] if own is None else own}
    image: dict[str, Any] = {"version": "0.4", "axes": axes, "datasets": [dataset]}
    if shared is not None:
        image["coordinateTransformations"] = shared
    group = zarr.create_group(path, zarr_format=2, attributes={"multiscales": [image], **more})
    group.create_array("0", data=PIXELS.transpose(2, 0, 1).copy(), chunks=(3, 64, 64))
    return path


def group(path: Path, **attributes: Any) -> Path:
    zarr.create_group(path, zarr_format=2, attributes=attributes)
    return path


def move(y: float, x: float) -> dict[str, Any]:
    return {"type": "translation", "translation": [0, y, x]}


@pytest.mark.parametrize(
    ("own", "shared", "size", "origin"),
    [
        ([ONES], [{"type": "scale", "scale": [1, 0.1625, 0.325]}], (0.1625, 0.325), (0, 0)),
        ([SCALE], [SCALE], (0.25, 0.0625), (0, 0)),
        ([SCALE, move(10, 20)], None, (0.5, 0.25), (10, 20)),
        ([SCALE, move(10, 20)], [SCALE, move(1, 2)], (0.25, 0.0625), (6, 7)),
        ([], [SCALE], (0.5, 0.25), (0, 0)),
        ([SCALE], [{"type": "identity"}], (0.5, 0.25), (0, 0)),
    ],
)  # fmt: skip
def test_transformations_of_the_image_follow_those_of_the_level(
    own: list, shared: list | None, size: tuple, origin: tuple, tmp_path: Path
) -> None:
    with open_zarr(write_image(tmp_path / "a.zarr", own=own, shared=shared)) as image:
        assert image.pixel_size_um == pytest.approx(size)
        assert image.origin_um == pytest.approx(origin)
    with open_zarr(write_image(tmp_path / "b.zarr", own=own, shared=shared, unit=None)) as image:
        assert image.pixel_size_um is image.origin_um is None, "no unit, no length"


def test_transformations_that_are_not_understood_are_refused(tmp_path: Path) -> None:
    for k, step in enumerate(
        ({"type": "scale", "scale": [1, 2]}, {"type": "rotation"}, {"type": "scale", "path": "s"})
    ):
        path = write_image(tmp_path / f"{k}.zarr", own=[step])
        with pytest.raises(
            ValueError, match=f"{k}.zarr: coordinateTransformations has .*expected a scale or a transla"
        ):
            open_zarr(path)


def test_the_only_image_of_a_bioformats2raw_folder_is_opened(tmp_path: Path) -> None:
    for name, listed in (("listed.zarr", True), ("bare.zarr", False)):
        folder = group(tmp_path / name, **{"bioformats2raw.layout": 3})
        if listed:
            group(folder / "OME", series=["0"])
        write_image(folder / "0")
        with open_zarr(folder) as image:
            assert image.name == str(folder / "0")
            assert image.pixel_size_um == (0.5, 0.25)
        np.testing.assert_array_equal(region(folder), expected(PIXELS))


def test_such_a_folder_is_opened_in_format_3_too(tmp_path: Path) -> None:
    layout = {"version": "0.5", "bioformats2raw.layout": 3}
    zarr.create_group(tmp_path / "a.zarr", zarr_format=3, attributes={"ome": layout})
    zarr.create_group(tmp_path / "a.zarr/OME", zarr_format=3, attributes={"ome": {"series": ["first"]}})
    write_image(tmp_path / "a.zarr/first")
    np.testing.assert_array_equal(region(tmp_path / "a.zarr"), expected(PIXELS))


def test_several_images_are_named_and_chosen_by_number(tmp_path: Path) -> None:
    folder = group(tmp_path / "a.zarr", **{"bioformats2raw.layout": 3})
    for name in ("0", "1"):
        write_image(folder / name)
    with pytest.raises(ValueError, match=r"a.zarr: holds 2 images: give one of them, .*a.zarr/0, .*a.zarr/1\."):
        open_zarr(folder)
    assert open_zarr(folder, series=1).name == str(folder / "1")
    with pytest.raises(ValueError, match=r"series is 2, the folder has 2 \(0 to 1\)"):
        open_zarr(folder, series=2)
    with pytest.raises(ValueError, match=r"empty.zarr: has the layout of bioformats2raw, but no image in it"):
        open_zarr(group(tmp_path / "empty.zarr", **{"bioformats2raw.layout": 3}))


def test_a_plate_is_refused_with_its_images_and_each_of_them_is_read(tmp_path: Path) -> None:
    wells = [f"A/{k}" for k in range(1, 9)]
    plate = group(tmp_path / "p.zarr", plate={"wells": [{"path": well} for well in [*wells, "H/12"]]})
    for well in wells:
        group(plate / well, well={"images": [{"path": "0"}]})
        write_image(plate / well / "0")
    with pytest.raises(ValueError, match=r"p.zarr: is a plate, wells 9: give one .*p.zarr/A/1/0, .*A/6/0 and 2 more\."):
        open_zarr(plate)
    for path in (plate / "A/1/0", plate / "A/1"):
        np.testing.assert_array_equal(region(path), expected(PIXELS))


def test_stains_are_not_taken_for_red_green_and_blue(tmp_path: Path) -> None:
    def channels(**labels: str) -> dict[str, Any]:
        return {"channels": [{"label": label, "color": colour} for label, colour in labels.items()]}

    for k, colours in enumerate((("FF0000", "00FF00", "0000FF"), ("FFFFFF",) * 3)):
        path = write_image(tmp_path / f"{k}.zarr", omero=channels(**dict(zip("abc", colours, strict=True))))
        np.testing.assert_array_equal(region(path), expected(PIXELS))
    stains = channels(DAPI="0000FF", GFP="00FF00", TRITC="FF0000")
    with pytest.raises(
        ValueError, match=r"s.zarr: axes are CYX, a stack of the channels DAPI, GFP, TRITC: expected red"
    ):
        open_zarr(write_image(tmp_path / "s.zarr", omero=stains))


def test_stacks_and_broken_folders_are_refused_by_name(tmp_path: Path) -> None:
    pixels = PIXELS.transpose(2, 0, 1).copy()
    for axis in "zt":
        zarr.create_array(tmp_path / f"{axis}.zarr", data=pixels, dimension_names=[axis, "y", "x"])
        with pytest.raises(ValueError, match=rf"{axis}.zarr: axes are {axis.upper()}YX with shape \(3, 150, 170\)"):
            open_zarr(tmp_path / f"{axis}.zarr")
    path = write_image(tmp_path / "a.zarr")
    (path / "0" / ".zarray").unlink()
    (path / "0" / ".zattrs").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"a.zarr/0: the folder is no zarr array"):
        open_zarr(path)
