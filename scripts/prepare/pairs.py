"""Images with masks: the pairs of a data set in its official layout, what each holds, and masks from label maps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from clinbundles.engines.outputs.files import replacing
from clinbundles.transforms.readers.decoding import is_nifti, read_nifti
from clinbundles.transforms.readers.folder import RASTER_SUFFIXES, image_stem, is_image
from clinbundles.transforms.readers.masks import read_mask
from clinbundles.transforms.readers.raster import read_raster

from .datalist import difference_hash
from .recordings import GazeFiles


@dataclass(frozen=True)
class Record:
    """One image with its mask; either is None where its file is missing. Records of one group stay together.

    Args:
        image: image file.
        label: mask file, or the file that the mask is made from.
        group: patient or sequence where known, else the image's own name.
        convert: makes the mask, bool (H, W), where ``label`` is no plain mask of its own.
        fault: why the record is of no use, as a sentence, where its layout knows.
        original_size: height and width in px of the image before it was resized, where its data set tells.
        source: hospital or collection that the image comes from, where its data set tells.
    """

    image: Path | None
    label: Path | None
    group: str
    convert: Callable[[], np.ndarray] | None = None
    fault: str | None = None
    original_size: tuple[int, int] | None = None
    source: str | None = None

    @property
    def path(self) -> Path:
        """The image file, or the mask file of a mask without image."""
        path = self.image or self.label
        assert path is not None
        return path

    def missing(self) -> str | None:
        """What the pair lacks, as a sentence, or None."""
        if self.fault:
            return self.fault
        if self.label is None:
            return f"{self.image}: image without mask."
        return f"{self.label}: mask without image." if self.image is None else None


@dataclass(frozen=True)
class DataSet:
    """Images with masks: what the data set is, and its records.

    Args:
        folder: folder of the data set, with its official lists.
        name: of the data set.
        description: what it holds, with its source.
        licence: of the data.
        records: its pairs of image and mask.
        label: what the masks mark.
        modality: how the images were taken.
        ratios: shares of training, validation and test where none are asked for.
        join_duplicates: whether near-duplicates are looked for, and kept in one split. The hash behind it sees the
            coarse layout of an image, which tells video frames apart, but not one fundus or one culture from another.
        gaze: recorded gaze on its images.
    """

    folder: Path
    name: str
    description: str
    licence: str
    records: Iterable[Record]
    label: str
    modality: str
    ratios: tuple[float, float, float] = (60, 10, 30)
    join_duplicates: bool = True
    gaze: GazeFiles | None = None


def own_folder(root: Path, name: str, *, holds: str) -> Path:
    """Find the folder of a data set: the one called ``name`` where ``root`` is the one above it, else ``root``."""
    is_above = not any(root.glob(holds)) and (root / name).is_dir()
    return root / name if is_above else root


def with_foreground(
    records: Iterable[Record], *, foreground: Collection[int], ids: Collection[int] | None = None
) -> Iterator[Record]:
    """Let each record make its mask from its label map.

    Args:
        records: pairs of an image and a label map.
        foreground: ids that count.
        ids: every id of the data set's label map; None takes any.
    """
    for record in records:
        label = record.label
        convert = partial(foreground_of, label, foreground=foreground, ids=ids) if label else None
        yield replace(record, convert=convert)


@dataclass(frozen=True)
class Contents:
    """What a usable pair holds.

    Args:
        sha256: hash of the image file's bytes, then of the mask file's (or of the values of a converted mask).
        perceptual_hash: bits (256,).
        foreground: share of the pixels that are foreground, from 0 to 1.
        label: file of the mask, the converted one where there is one.
    """

    sha256: str
    perceptual_hash: np.ndarray
    foreground: float
    label: Path

    @property
    def has_foreground(self) -> bool:
        """Whether anything is marked."""
        return self.foreground > 0


def pair_by_name(
    images: Path, masks: Path, *, mask_ending: str = "", group: Callable[[str], str] = str
) -> Iterator[Record]:
    """Pair the images and masks of two folders, or of one, by name, in name order; hidden files are skipped.

    Args:
        images: folder of the images.
        masks: folder of the masks; where it is the same, ``mask_ending`` tells the masks from the images.
        mask_ending: what a mask's name without suffix has more than its image's.
        group: from an image's name without suffix to its group.

    Raises:
        FileNotFoundError: a folder is missing, or the first holds no image.
        ValueError: two files of a folder differ only in their suffix, or nothing tells masks from images.
    """
    image_files, mask_files = _files_by_stem(images), _files_by_stem(masks)
    if images == masks:
        if not mask_ending:
            raise ValueError(f"{images}: images and masks in one folder need a --mask_ending, such as _mask.")
        mask_files = {stem: path for stem, path in mask_files.items() if stem.endswith(mask_ending)}
        image_files = {stem: path for stem, path in image_files.items() if stem not in mask_files}
    if not image_files:
        raise FileNotFoundError(f"{images}: no image here ({', '.join(RASTER_SUFFIXES)}, .nii or DICOM).")
    labels = {stem.removesuffix(mask_ending): path for stem, path in mask_files.items() if stem.endswith(mask_ending)}
    strangers = {stem: path for stem, path in mask_files.items() if not stem.endswith(mask_ending)}
    for stem in sorted(image_files.keys() | labels.keys()):
        yield Record(image_files.get(stem), labels.get(stem), group(stem))
    for stem, path in sorted(strangers.items()):
        yield Record(None, path, group(stem))


def _files_by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder.")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not is_image(path):
            continue
        stem = image_stem(path)
        if stem in files:
            raise ValueError(f"{files[stem]} and {path.name} differ only in their suffix.")
        files[stem] = path
    return files


def inspect(
    record: Record, *, mask_file: Path | None = None, intensity_range: tuple[float, float] | None = None
) -> Contents:
    """Read and check a pair; a mask that must be converted is written to ``mask_file`` as 0 and 255.

    Args:
        record: the pair.
        mask_file: PNG file to write, for a record with ``convert``; its folder is made.
        intensity_range: see :class:`clinbundles.transforms.readers.images.RGBImageReader`.

    Raises:
        ValueError: a file is missing or corrupt, or the mask has not the image's size, or looks like a label map.
    """
    from clinbundles.transforms.readers.images import RGBImageReader  # brings torch and MONAI

    if missing := record.missing():
        raise ValueError(missing)
    assert record.image is not None
    assert record.label is not None
    image = RGBImageReader(intensity_range=intensity_range).read(record.image)
    mask = read_mask(record.label) if record.convert is None else record.convert()
    if image.shape[:2] != mask.shape:
        (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape
        raise ValueError(f"{record.label}: mask of {mask_width}x{mask_height} px, its image has {width}x{height}.")
    label, mask_bytes = record.label, b""
    if record.convert is None:
        mask_bytes = record.label.read_bytes()
    else:
        assert mask_file is not None
        # The values and not the file: compressors differ between machines, and the data do not.
        label, mask_bytes = mask_file, (mask * np.uint8(255)).tobytes()
        mask_file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(mask_file) as partial:
            Image.fromarray(mask * np.uint8(255)).save(partial, format="PNG")
    digest = hashlib.sha256(record.image.read_bytes() + mask_bytes).hexdigest()
    return Contents(digest, difference_hash(image), float(mask.mean()), label)


def read_label_map(path: Path) -> np.ndarray:
    """Read a label map, a grey or palette image or NIfTI, as whole numbers (H, W).

    Raises:
        ValueError: the file is corrupt, a colour image, or a stack of several.
    """
    if is_nifti(path):
        values = read_nifti(path)
        if values.ndim != 2 or not np.isfinite(values).all() or (values != np.rint(values)).any():
            raise ValueError(f"{path}: a label map holds one whole number a pixel.")
        return values.astype(np.int64)
    values = np.asarray(read_raster(path))
    if values.ndim == 3 and values.shape[2] == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind == "f":
        raise ValueError(f"{path}: {values.dtype} of shape {values.shape} is no label map (one id a pixel).")
    return values.astype(np.int64)


def foreground_of(path: Path, *, foreground: Collection[int], ids: Collection[int] | None = None) -> np.ndarray:
    """Read a label map as a mask, bool (H, W): where its id is one of ``foreground``.

    Args:
        path: the file.
        foreground: ids that count.
        ids: every id of the data set's label map; None takes any.

    Raises:
        ValueError: the file is no label map, or holds an id that is not one of ``ids``.
    """
    values = read_label_map(path)
    strangers = [] if ids is None else [int(value) for value in np.unique(values) if value not in ids]
    if strangers:
        raise ValueError(f"{path}: label id {strangers[0]} is not in the label map of the data set.")
    return np.isin(values, list(foreground))
