"""Readers of slices for MONAI's ``LoadImaged``: CT volumes, and grey images and label maps as volumes of one slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import MetaKeys, ensure_tuple

from .class_names import compare_class_names
from .ct import CTReader
from .ct_series import is_slice_file
from .ct_volume import CTVolume, to_grey
from .datalist import read_content
from .decoding import is_dicom, is_nifti
from .folder import is_image, list_images
from .images import RowMajorReader
from .raster import open_image

GREY_MODES = ("1", "L")
# Rows of a picture go towards posterior, columns towards the patient's left, slices towards the head.
PICTURE_AFFINE = torch.tensor([[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)


class SliceReader(RowMajorReader):
    """Read a grey image of 8 bits, or a CT volume as grey values, as a volume without a channel axis.

    An image is uint8 (H, W, 1), rows towards posterior and columns towards the patient's left; what its values mean is
    said by the datalist that lists it. A NIfTI file or a folder of one DICOM series is float32 of 0 to 255, with the
    axes and the affine of the file; ``Orientationd`` with ``axcodes="PLS"`` turns it into such images.

    Args:
        window_hu: HU that become 0 and 255 in a CT volume; what is beyond is clipped.

    Raises:
        FileNotFoundError: no such file.
        ValueError: ``window_hu`` is no window; the file is corrupt, coloured or deeper than 8 bits, or no CT volume
            (see :class:`.ct.CTReader`).
    """

    def __init__(self, window_hu: Sequence[float] = (-1000, 600)) -> None:
        check_window(window_hu)
        self.window_hu = tuple(window_hu)

    def read(self, data: Sequence[Any] | Any, **_: Any) -> Any:
        """Read an image (H, W, 1), or a volume as :class:`.ct_volume.CTVolume`."""
        paths = [Path(path) for path in ensure_tuple(data)]
        if len(paths) == 1 and is_volume(paths[0]):
            return CTReader().read(paths)
        return super().read(data)

    def _decode(self, path: Path) -> np.ndarray:
        return read_grey(path)[..., None]

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """Return the grey values and the meta data that MONAI expects."""
        if isinstance(img, CTVolume):
            array, meta = CTReader().get_data(img)
            for slab in array:  # one by one, to save memory
                slab[:] = to_grey(slab, self.window_hu)
            return array, meta
        values, meta = super().get_data(img)
        meta |= {MetaKeys.AFFINE: PICTURE_AFFINE.clone(), MetaKeys.ORIGINAL_AFFINE: PICTURE_AFFINE.clone()}
        meta |= {MetaKeys.SPATIAL_SHAPE: np.asarray(img.shape), MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan")}
        return values, meta


def is_volume(path: Path) -> bool:
    """Whether a path is that of a CT volume, by what it holds, and not of a picture."""
    return path.is_dir() or (path.is_file() and (is_nifti(path) or is_dicom(path)))


def list_volumes(folder: str) -> list[dict[str, Any]]:
    """List pictures and CT volumes of a folder as items ``{"image": path}``, in name order.

    A NIfTI file is a volume, and so is each folder below that holds DICOM files; a folder of DICOM files is one itself.

    Raises:
        FileNotFoundError: no such folder, or nothing of that in it.
    """
    root = Path(folder)
    if not root.is_dir():
        return list_images(folder)
    if _holds_slices(root):
        return [{"image": str(root)}]
    items = [path for path in sorted(root.iterdir()) if (path.is_dir() and _holds_slices(path)) or is_image(path)]
    return [{"image": str(path)} for path in items] or list_images(folder)


def _holds_slices(folder: Path) -> bool:
    return any(is_slice_file(path) for path in folder.iterdir())


class LabelMapReader(SliceReader):
    """Read the classes of a slice as uint8 (H, W, 1).

    Args:
        class_names: names of the classes; the values of the file are their places.

    Raises:
        ValueError: a value is no class, as where a mask of 0 and 255 is taken for a label map.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__()
        self.class_names = class_names

    def read(self, data: Sequence[Any] | Any, **_: Any) -> np.ndarray:
        """Read the classes (H, W, 1) of one picture."""
        return RowMajorReader.read(self, data)

    def _decode(self, path: Path) -> np.ndarray:
        return read_label_map(path, self.class_names)[..., None]


def read_label_map(path: Path, class_names: Sequence[str]) -> np.ndarray:
    """Read the classes of a slice as uint8 (H, W).

    Raises:
        FileNotFoundError: no such file.
        ValueError: as :func:`read_grey`, or a value is no class.
    """
    values = read_grey(path, as_stored=True)
    if (highest := int(values.max(initial=0))) >= len(class_names):
        raise ValueError(
            f"{path}: holds the value {highest}, and there are {len(class_names)} classes, 0 to "
            f"{len(class_names) - 1}: {', '.join(class_names)}."
        )
    return values


def check_datalist(
    datalist: str | PathLike, class_names: Sequence[str], window_hu: Sequence[float] | None = None
) -> None:
    """Refuse a datalist of other classes, or of slices of another window, than a network is made for.

    What :func:`read_datalist` refuses is refused too.

    Args:
        datalist: the JSON file.
        class_names: of the network, the background first.
        window_hu: HU that become 0 and 255 where the network is used on CT volumes; None compares no window.

    Raises:
        FileNotFoundError, ValueError: the message names both.
    """
    content = read_datalist(datalist)
    compare_class_names(content, class_names, source=datalist)
    window = content.get("window_hu")
    if window_hu is not None and window is not None and list(window) != list(window_hu):
        raise ValueError(
            f"{datalist}: its slices have the window {list(window)} HU, the network {list(window_hu)}: give window_hu "
            "as the list has it."
        )


def read_datalist(datalist: str | PathLike) -> dict[str, Any]:
    """Read a datalist of slices.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON of splits by name, an item of one has no image, or two splits share an image or a
            patient (``group``), whom the message does not name.
    """
    path, content = Path(datalist), read_content(datalist)
    places: dict[tuple[str, str], tuple[str, int]] = {}
    for split, items in content.items():
        if split == "skipped" or not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
            continue
        for number, item in enumerate(items):
            if not isinstance(item.get("image"), str):
                raise ValueError(f"{path}: item {number} of its split {split!r} has no image.")
            for key, what in (("image", "one image"), ("group", "one patient or group")):
                if item.get(key) is None:
                    continue
                other, first = places.setdefault((key, str(item[key])), (split, number))
                if other != split:
                    raise ValueError(
                        f"{path}: item {first} of its split {other!r} and item {number} of {split!r} are of {what}, "
                        "which may be in one split alone."
                    )
    return content


def check_window(window_hu: Any) -> None:
    """Refuse what are no two HU, the lower one first.

    Raises:
        ValueError: it is so.
    """
    bounds = list(window_hu) if isinstance(window_hu, Sequence) and not isinstance(window_hu, str) else []
    numbers = [n for n in bounds if isinstance(n, int | float) and np.isfinite(n)]
    if len(bounds) != 2 or len(numbers) != 2 or bounds[0] >= bounds[1]:
        raise ValueError(f"window_hu is {window_hu!r}, expected two HU, low and high, such as -1000,600.")


def read_grey(path: Path, *, as_stored: bool = False) -> np.ndarray:
    """Read a grey image of 8 bits as uint8 (H, W).

    Args:
        path: the file.
        as_stored: also take the numbers of a palette image, not their colours: label maps are often saved so.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is corrupt, coloured or deeper than 8 bits.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    image = open_image(path)
    if image.mode in ("P", "PA") and as_stored:
        return np.asarray(image.getchannel(0) if image.mode == "PA" else image).astype(np.uint8)
    if image.mode == "1" and as_stored:
        return np.asarray(image).astype(np.uint8)
    if image.mode not in GREY_MODES:
        values = np.asarray(image)
        if image.mode in ("RGB", "RGBA") and (values[..., :3] == values[..., :1]).all():
            return values[..., 0]
        raise ValueError(f"{path}: pixel mode {image.mode!r}, expected a grey image of 8 bits.")
    return np.asarray(image.convert("L"))
