"""Data sets of slices that are pictures already: chest CT of a narrow window, and crops of nuclei."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from clinbundles.transforms.readers.folder import is_image
from clinbundles.transforms.readers.raster import open_image

from .annotations import Omissions
from .cells import bowl2018_records, union_of_masks
from .instances import look_of
from .pairs import own_folder
from .series import Requirement, Series, Slice, SliceSet

# Least share of a crop that is nucleus.
LEAST_NUCLEUS = 0.01


def iq_othnccd(root: Path) -> SliceSet:
    """IQ-OTHNCCD: chest CT as pictures of a narrow window, by diagnosis, without HU, labels or the patients' names.

    All are of the test split and of one group: slices of one patient cannot be told from others.
    """
    folder = own_folder(root, "The IQ-OTHNCCD lung cancer dataset", holds="* cases/*.jpg")
    files = [path for path in sorted(folder.glob("* cases/*")) if is_image(path)]
    if not files:
        raise FileNotFoundError(f"{folder}: no folder 'Normal cases' with pictures of IQ-OTHNCCD here.")
    series = [Series(path.relative_to(root).as_posix(), "", partial(grey_slice, path), [path]) for path in files]
    return SliceSet(
        name="IQ-OTHNCCD",
        description="Axial slices of chest CT as 8-bit pictures (Alyasriy and Al-Huseiny, The IQ-OTHNCCD lung cancer "
        "dataset, 2020); patients are not known",
        licence="CC BY 4.0",
        modality="CT, 8-bit picture without HU",
        series=series,
        only_split="test",
    )


def bowl2018_crops(root: Path, *, stretch: bool = False) -> SliceSet:
    """Crops of the Data Science Bowl 2018: its dark grey images (fluorescence), with 1 where any nucleus is.

    Images in colour or of a bright ground are left out, and crops of which less than 1 % are nucleus. The crops of an
    image are one group.

    Args:
        root: the folder.
        stretch: let the 0.1 and 99.9 % quantiles of each image be black and white; half of them use less than a third
            of the grey values.
    """
    folder = own_folder(root, "stage1_train", holds="*/images/*.png")
    omissions, series = Omissions(), []
    for record in bowl2018_records(folder):
        pixels = np.asarray(open_image(record.path).convert("RGB"))
        if not look_of(pixels).endswith("grey dark"):
            omissions.add("images in colour or of a bright ground", record.path.name)
            continue
        read = partial(nuclei_slice, pixels[..., 0], record.path.parents[1] / "masks", stretch=stretch)
        masks = sorted((record.path.parents[1] / "masks").glob("[!.]*.png"))
        series.append(Series(record.path.name, record.group, read, [record.path, *masks]))
    return SliceSet(
        name="BOWL2018 crops",
        description="Dark grey microscopy of nuclei (Caicedo et al., Nucleus segmentation across imaging experiments: "
        "the 2018 Data Science Bowl, 2019), cut into squares at the scale of the image",
        licence="CC0",
        modality="fluorescence microscopy",
        series=series,
        labels=("background", "nucleus"),
        labeller="people",
        crops=True,
        requirement=Requirement(frozenset({1}), LEAST_NUCLEUS, "crops of which less than 1 % are nucleus"),
        omissions=omissions,
        facts={"stretch": stretch},
    )


def grey_slice(path: Path) -> Iterator[Slice]:
    """Read a picture as one slice.

    Raises:
        ValueError: it cannot be read, or is in colour.
    """
    pixels = np.asarray(open_image(path).convert("RGB"))
    if (np.ptp(pixels.astype(int), axis=2) > 8).any():
        raise ValueError(f"{path}: a picture in colour, expected grey.")
    yield Slice(pixels[..., 0])


def nuclei_slice(pixels: np.ndarray, masks: Path, *, stretch: bool) -> Iterator[Slice]:
    """Take an image uint8 (H, W) with the union of its nuclei for one slice."""
    labels = union_of_masks(masks).astype(np.uint8)
    if labels.shape != pixels.shape:
        raise ValueError(f"{masks}: masks of {labels.shape[1]}x{labels.shape[0]} px, not the image's size.")
    if stretch:
        low, high = np.quantile(pixels, (0.001, 0.999))
        pixels = np.clip((pixels - low) * (255 / max(high - low, 1)), 0, 255).astype(np.float32)
    yield Slice(pixels, labels)
