"""Labelled images of a data set: checked, balanced, and split class by class so that no patient crosses splits."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader
from tqdm import tqdm

from .datalist import SPLITS, difference_hash, join_groups, near_duplicates, split_groups

# Bits of 256 that may differ between two copies of one X-ray. Of the 2000 images of both collections used here, copies
# differ in 0 to 3 and X-rays of different patients in 14 and more.
COPY_BITS = 8


@dataclass(frozen=True)
class LabelledImage:
    """One image of a class. Images of one group, the patient where known, stay in one split.

    Args:
        image: image file.
        class_name: its class.
        group: patient, or the image's own name.
        source: where it comes from, such as a hospital.
    """

    image: Path
    class_name: str
    group: str
    source: str


@dataclass(frozen=True)
class Checked:
    """Images that can be read, the hash of all of them, and the files that cannot, as {"file", "reason"}."""

    images: list[LabelledImage]
    sha256: str
    copies: list[tuple[Path, Path]]
    skipped: list[dict[str, str]]


def check(images: Iterable[LabelledImage], *, root: Path, reader: ImageReader, skip_bad: bool) -> Checked:
    """Images in; those that ``reader`` reads out, with the groups joined that hold copies of one X-ray.

    Args:
        images: the images.
        root: folder that the file names in the result start from.
        reader: reads a file to grey values uint8 (H, W), or refuses it with a ``ValueError``.
        skip_bad: go on without the files that are refused, instead of stopping at the first.

    Raises:
        ValueError: what the reader says, unless ``skip_bad``.
    """
    good, hashes, digests, skipped = [], [], [], []
    for item in tqdm(sorted(images, key=lambda i: i.image), desc="checking", unit="image"):
        try:
            values = np.asarray(reader.read(item.image))
        except ValueError as error:
            if not skip_bad:
                raise
            reason = str(error).replace(f"{root}/", "")
            skipped.append({"file": item.image.relative_to(root).as_posix(), "reason": reason})
            continue
        good.append(item)
        hashes.append(difference_hash(values))
        digests.append(hashlib.sha256(item.image.read_bytes()).hexdigest())
    pairs = near_duplicates(hashes, bits=COPY_BITS) if good else []
    groups = join_groups([item.group for item in good], pairs)
    joined = [replace(item, group=group) for item, group in zip(good, groups, strict=True)]
    copies = [(good[a].image, good[b].image) for a, b in pairs if good[a].group != good[b].group]
    return Checked(joined, hashlib.sha256("".join(digests).encode()).hexdigest(), copies, skipped)


def undersample(images: Sequence[LabelledImage], counts: Mapping[str, int], *, seed: int) -> list[LabelledImage]:
    """Images in; ``counts`` of each class out, drawn at random, in the order they came.

    Raises:
        ValueError: a class has fewer images.
    """
    chosen: set[Path] = set()
    for class_name, count in sorted(counts.items()):
        paths = sorted(item.image for item in images if item.class_name == class_name)
        if len(paths) < count:
            raise ValueError(f"{count} images of class {class_name} asked for, there are {len(paths)}.")
        order = np.random.RandomState(seed).permutation(len(paths))
        chosen.update(paths[k] for k in order[:count])
    return [item for item in images if item.image in chosen]


def split_classes(
    images: Sequence[LabelledImage], *, seed: int, by_group: bool = True, test: bool = True
) -> dict[str, list[LabelledImage]]:
    """Images in; "training", "validation" and "test" out: of each class, the test gets a fifth, rounded down.

    Validation gets an eighth of the rest, rounded down; so 544, 500 and 456 images give 108, 100 and 91 for test and
    54, 50 and 45 for validation. Groups are split as a whole, apart for each set of classes that occur together in a
    group; where a split needs more groups than there are, they go to training.

    Args:
        images: the images.
        seed: of the random order.
        by_group: keep groups together; False splits image by image.
        test: False gives no test split.

    Raises:
        ValueError: a class that a split would have to do without.
    """
    classes_of: dict[str, set[str]] = defaultdict(set)
    names = {item.image: item.group if by_group else str(item.image) for item in images}
    for item in images:
        classes_of[names[item.image]].add(item.class_name)
    strata: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for item in images:
        group = names[item.image]
        strata[tuple(sorted(classes_of[group]))][group] += 1
    split_of: dict[str, str] = {}
    for sizes in strata.values():
        total = sum(sizes.values())
        for_test = total // 5 if test else 0
        for_validation = (total - for_test) // 8
        shares = (total - for_test - for_validation, for_validation, for_test)
        if len(sizes) < sum(share > 0 for share in shares):
            shares = (total, 0, 0)
        split_of |= split_groups(sizes, ratios=shares, seed=seed)
    splits: dict[str, list[LabelledImage]] = {name: [] for name in SPLITS if test or name != "test"}
    for item in images:
        splits[split_of[names[item.image]]].append(item)
    for split, members in splits.items():
        for class_name in sorted({item.class_name for item in images} - {item.class_name for item in members}):
            raise ValueError(f"class {class_name} has too few images or patients: {split} gets none of it.")
    return splits


def leaks(training: Iterable[LabelledImage], test: Sequence[LabelledImage]) -> dict[str, int]:
    """What a training saw of a test split: images of it, and images of its patients."""
    training = list(training)
    files, groups = {item.image for item in training}, {item.group for item in training}
    return {
        "test_images": len(test),
        "seen_images": sum(item.image in files for item in test),
        "images_of_seen_patients": sum(item.group in groups for item in test),
    }


def as_items(images: Iterable[LabelledImage], *, root: Path, class_names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Images in, items of a datalist out: image, label (place in ``class_names``), group, source."""
    for item in images:
        yield {
            "image": item.image.relative_to(root).as_posix(),
            "label": class_names.index(item.class_name),
            "group": item.group,
            "source": item.source,
        }
