"""Zarr folders as large images: plain arrays, OME-NGFF images, and the folders and plates that hold such images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zarr

from clinbundles.transforms.readers.pixel_size import um_per_unit

from .image import LargeImage, check_level

_METADATA = ("zarr.json", ".zarray", ".zattrs")
_LISTED = 6  # images named in a message
_RGB = ("FF0000", "00FF00", "0000FF")
Pair = tuple[float, float]


def open_zarr(path: Path, *, level: int = 0, series: int | None = None) -> LargeImage:
    """Open a zarr array, or one level of an OME-NGFF image (format 2 or 3); nothing of it is decoded yet.

    A folder with one image in it, as bioformats2raw writes, is taken for that image.

    Args:
        path: the folder.
        level: 0 for full resolution.
        series: number of the image in a folder of several; None where there is one.

    Raises:
        ValueError: no zarr, a plate, several images, no such image or level, axes or metadata that are not handled.
    """
    node = _open_node(path)
    if isinstance(node, zarr.Array):
        _check_series(path, series, 1)
        check_level(path, level, 1)
        return LargeImage(node, _axes_of(path, node), name=str(path), fingerprint=_fingerprint(path))
    attributes = _attributes(node)
    if "multiscales" not in attributes:
        paths = _image_paths(path, attributes)
        inner = paths[_check_series(path, series, len(paths), paths)]
        return open_zarr(inner, level=level)
    images = attributes["multiscales"]
    image = images[_check_series(path, series, len(images))]
    axes, datasets = image.get("axes"), image.get("datasets")
    if not axes or not datasets or not isinstance(axes[0], Mapping):
        raise ValueError(f"{path}: its multiscales metadata has no datasets with named axes (OME-NGFF 0.4, 0.5).")
    check_level(path, level, len(datasets))
    folder = path / datasets[level]["path"]
    array = _open_node(folder)
    if not isinstance(array, zarr.Array):
        raise ValueError(f"{folder}: is level {level} of the image, but no zarr array.")
    _refuse_stains(path, attributes, axes)
    size, origin = _size_and_origin(path, axes, image, datasets[level])
    return LargeImage(
        array,
        "".join("C" if axis.get("type") == "channel" else axis["name"][:1].upper() for axis in axes),
        name=str(path),
        pixel_size_um=size,
        origin_um=origin,
        fingerprint=_fingerprint(path, folder),
        place=f"level {level} of {len(datasets)}" if len(datasets) > 1 else "",
    )


def _open_node(path: Path) -> zarr.Array | zarr.Group:
    try:
        return zarr.open(path, mode="r")
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: the folder is no zarr array or group ({error}).") from error


def _attributes(group: zarr.Group) -> dict[str, Any]:
    attributes: dict[str, Any] = dict(group.attrs)
    return {**attributes, **attributes.get("ome", {})}


def _image_paths(path: Path, attributes: Mapping[str, Any]) -> list[Path]:
    """List the images in a well or in a folder of bioformats2raw.

    Raises:
        ValueError: a plate, whose images are named, or a group without any.
    """
    if "plate" in attributes:
        wells = [path / well["path"] for well in attributes["plate"].get("wells", [])]
        images = _names([image for well in wells if well.is_dir() for image in _image_paths_of_well(well)])
        raise ValueError(f"{path}: is a plate, wells {len(wells)}: give one of its images, {images}.")
    if "well" in attributes:
        return _image_paths_of_well(path)
    if "bioformats2raw.layout" not in attributes:
        raise ValueError(f"{path}: the zarr group has no multiscales metadata with named axes (OME-NGFF 0.4, 0.5).")
    listed = _attributes(_open_group(path / "OME")).get("series", []) if (path / "OME").is_dir() else []
    names = listed or sorted((p.name for p in path.iterdir() if p.name.isdecimal()), key=int)
    if not names:
        raise ValueError(f"{path}: has the layout of bioformats2raw, but no image in it.")
    return [path / name for name in names]


def _image_paths_of_well(path: Path) -> list[Path]:
    return [path / image["path"] for image in _attributes(_open_group(path)).get("well", {}).get("images", [])]


def _open_group(path: Path) -> zarr.Group:
    node = _open_node(path)
    if isinstance(node, zarr.Array):
        raise ValueError(f"{path}: is a zarr array, expected a group.")
    return node


def _check_series(path: Path, series: int | None, count: int, paths: Sequence[Path] = ()) -> int:
    """Return the number of the only image, or of the one asked for."""
    if series is None and count == 1:
        return 0
    if series is None:
        choice = f": give one of them, {_names(paths)}" if paths else ": choose one by --series"
        raise ValueError(f"{path}: holds {count} images{choice}.")
    if not 0 <= series < count:
        raise ValueError(f"{path}: series is {series}, the folder has {count} (0 to {count - 1}).")
    return series


def _names(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    return ", ".join(map(str, paths[:_LISTED])) + more


def _refuse_stains(path: Path, attributes: Mapping[str, Any], axes: Sequence[Mapping[str, Any]]) -> None:
    """Refuse channels whose colours the metadata tells apart and that are no red, green and blue, in this order."""
    channels = attributes.get("omero", {}).get("channels", [])
    colours = [str(channel.get("color", "")).upper().removeprefix("#") for channel in channels]
    if len(set(colours)) > 1 and tuple(colours[:3]) != _RGB:
        labels = ", ".join(str(channel.get("label", channel.get("color"))) for channel in channels)
        names = "".join(axis["name"] for axis in axes).upper()
        raise ValueError(f"{path}: axes are {names}, a stack of the channels {labels}: expected red, green and blue.")


def _size_and_origin(
    path: Path, axes: Sequence[Mapping[str, Any]], image: Mapping[str, Any], dataset: Mapping[str, Any]
) -> tuple[Pair | None, Pair | None]:
    """Pixel size (y, x) and place of the first pixel in µm; the image's own transformations follow those of a level.

    None, None where there is no scale or no unit of length.
    """
    scale, shift, has_scale = [1.0] * len(axes), [0.0] * len(axes), False
    for step in (*dataset.get("coordinateTransformations", []), *image.get("coordinateTransformations", [])):
        values = step.get(step["type"], [])
        if step["type"] == "identity":
            continue
        if step["type"] not in ("scale", "translation") or len(values) != len(axes):
            raise ValueError(
                f"{path}: coordinateTransformations has {dict(step)}, expected a scale or a translation of {len(axes)} "
                "numbers."
            )
        if step["type"] == "scale":
            has_scale = True
            scale = [a * b for a, b in zip(scale, values, strict=True)]
            shift = [a * b for a, b in zip(shift, values, strict=True)]
        else:
            shift = [a + b for a, b in zip(shift, values, strict=True)]
    at = {axis["name"].lower(): k for k, axis in enumerate(axes)}
    if not has_scale or not {"y", "x"} <= at.keys():
        return None, None
    um = {name: um_per_unit(str(axes[at[name]].get("unit", ""))) for name in "yx"}
    size = (scale[at["y"]] * um["y"], scale[at["x"]] * um["x"])
    if not min(size) > 0:
        return None, None
    return size, (shift[at["y"]] * um["y"], shift[at["x"]] * um["x"])


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


def _fingerprint(*folders: Path) -> str:
    """Hash the metadata of folders with the times of their last change."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(p for p in folder.iterdir() if p.name in _METADATA):
            digest.update(file.read_bytes() + str(file.stat().st_mtime_ns).encode())
    return digest.hexdigest()
