"""The datalist of labelled images: checked, balanced, and split class by class so that no patient crosses splits."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clinbundles.engines.data_hash import hash_facts
from clinbundles.engines.outputs.files import write_atomically
from clinbundles.scripts.bars import watch

from .datalist import (
    SPLITS,
    check_seed,
    datalist_as_json,
    difference_hash,
    join_groups,
    near_duplicates,
    split_groups,
)

if TYPE_CHECKING:
    from monai.data import ImageReader

# Bits of 256 that may differ between two copies of one X-ray. Of the 2000 images of both collections used here, copies
# differ in 0 to 3 and X-rays of different patients in 14 and more.
DUPLICATE_BITS = 8


@dataclass(frozen=True)
class LabelledImage:
    """One image of a class. Images of one group, the patient where known, stay in one split.

    Args:
        image: image file.
        class_name: its class.
        group: patient, or the image's own name.
        source: where it comes from, such as a hospital.
        fault: why it cannot be used, as its name tells, or nothing.
    """

    image: Path
    class_name: str
    group: str
    source: str
    fault: str = ""


@dataclass(frozen=True)
class Arrangement:
    """What becomes of the images of use: the splits of a datalist, and what it says about them.

    Args:
        facts: entries of the datalist, in front of its splits.
        splits: images and class names by number, for each split.
        notes: lines to print at the end.
        unused: why an image is in no split.
    """

    facts: Mapping[str, Any]
    splits: Mapping[str, tuple[Sequence[LabelledImage], Sequence[str]]]
    notes: Sequence[str] = ()
    unused: str = "not drawn by --balance"


@dataclass(frozen=True)
class ClassSet:
    """Images of classes, and how they are drawn and split.

    Args:
        images: all that could be used.
        arrange: makes splits of those that can be read, by a keyword ``seed``.
        force: take images that do not look like frontal chest X-rays.
    """

    images: Sequence[LabelledImage]
    arrange: Callable[..., Arrangement]
    force: bool = False


@dataclass(frozen=True)
class Inspection:
    """Images that can be read, the hash of each, and the files that cannot, as {"file", "reason"}."""

    images: list[LabelledImage]
    digests: list[str]
    duplicates: list[tuple[Path, Path]]
    faults: list[dict[str, str]]


def write_classes(data: ClassSet, *, root: Path, target: Path, seed: int = 0, skip_bad: bool = False) -> None:
    """Write the datalist of labelled images.

    Args:
        data: the data set.
        root: folder that the paths of the datalist start from.
        target: JSON file to write.
        seed: of the choice and of the split.
        skip_bad: list the files that cannot be used, here and in the datalist, and go on without them.
    """
    check_seed(seed)
    from clinbundles.transforms.readers.chest_xray import ChestXRayReader  # brings torch and MONAI

    inspection = check(data.images, root=root, reader=ChestXRayReader(force=data.force), skip_bad=skip_bad)
    if not inspection.images:
        raise ValueError(f"{root}: no image of {len(data.images)} is of use, first {inspection.faults[0]['reason']}")
    arrangement = data.arrange(inspection.images, seed=seed)
    duplicates = [[path.relative_to(root).as_posix() for path in pair] for pair in inspection.duplicates]
    notes = {"seed": seed, **hash_facts(inspection.digests), "copies": duplicates, "skipped": inspection.faults}
    # MONAI takes the first item of a split to know its kind: an empty one must not be there.
    lists = {
        name: list(as_items(images, root=root, class_names=class_names))
        for name, (images, class_names) in arrangement.splits.items()
        if images
    }
    write_atomically(target, datalist_as_json({**arrangement.facts, **notes, **lists}))

    for entry in inspection.faults:
        print(f"skipped {entry['file']}: {entry['reason']}")
    members = {item.image for images, _ in arrangement.splits.values() for item in images}
    for name, (images, class_names) in arrangement.splits.items():
        _report(name, images, class_names)
    for line in arrangement.notes:
        print(line)
    print(f"{len(duplicates)} duplicates under two patients joined")
    print(
        f"{len(data.images)} images came in, {len(members)} are used, {len(inspection.faults)} are left out as bad, "
        f"{len(inspection.images) - len(members)} are {arrangement.unused}; wrote {target}"
    )


def _report(split: str, images: Sequence[LabelledImage], class_names: Sequence[str]) -> None:
    counts = Counter(item.class_name for item in images)
    classes = ", ".join(f"{counts[name]} {name}" for name in class_names if counts[name])
    print(f"{split}: {len(images)} images ({classes}) of {len({item.group for item in images})} patients")


def check(images: Iterable[LabelledImage], *, root: Path, reader: ImageReader, skip_bad: bool) -> Inspection:
    """Read all images, and join the groups that hold copies of one X-ray.

    Args:
        images: the images.
        root: folder that the file names in the result start from.
        reader: reads a file to grey values uint8 (H, W), or refuses it with a ``ValueError``.
        skip_bad: go on without the files that are refused, instead of stopping at the first.

    Raises:
        ValueError: what the reader says, unless ``skip_bad``.
    """
    good, hashes, digests, faults = [], [], [], []
    for item in watch(sorted(images, key=lambda i: i.image), desc="checking", unit="image"):
        try:
            if item.fault:
                raise ValueError(item.fault)
            values = np.asarray(reader.read(item.image))
        except ValueError as error:
            if not skip_bad:
                raise ValueError(f"{error} --skip_bad leaves such files out.") from error
            reason = str(error).replace(f"{root}/", "")
            faults.append({"file": item.image.relative_to(root).as_posix(), "reason": reason})
            continue
        good.append(item)
        hashes.append(difference_hash(values))
        digests.append(hashlib.sha256(item.image.read_bytes()).hexdigest())
    pairs = near_duplicates(hashes, bits=DUPLICATE_BITS) if good else []
    groups = join_groups([item.group for item in good], pairs)
    duplicates = [(good[a].image, good[b].image) for a, b in pairs if good[a].group != good[b].group]
    members = [replace(item, group=group) for item, group in zip(good, groups, strict=True)]
    return Inspection(members, digests, duplicates, faults)


def check_balance(balance: Any, class_names: Sequence[str]) -> list[int] | None:
    """Parse --balance: numbers of images, or None for "none" and "smallest"; refuse anything else."""
    if balance in ("none", "smallest"):
        return None
    counts = list(balance) if isinstance(balance, tuple | list) else [balance]
    if len(counts) != len(class_names) or not all(type(count) is int and count > 0 for count in counts):
        raise ValueError(
            f"--balance is {balance!r}: expected smallest, none or numbers of images for {', '.join(class_names)}"
        )
    return counts


def count_balance(balance: Any, images: Sequence[LabelledImage], class_names: Sequence[str]) -> dict[str, int]:
    """Number of images of each class that --balance asks for.

    Args:
        balance: "none" (all), "smallest" (as many of each as the rarest has) or a number for each class.
        images: those there are.
        class_names: the classes, in the order of the numbers.
    """
    available = Counter(item.class_name for item in images)
    if missing := [name for name in class_names if not available[name]]:
        raise ValueError(f"there is no image of class {missing[0]}")
    counts = check_balance(balance, class_names)
    if counts is not None:
        return dict(zip(class_names, counts, strict=True))
    return dict(available) if balance == "none" else dict.fromkeys(available, min(available.values()))


def undersample(images: Sequence[LabelledImage], counts: Mapping[str, int], *, seed: int) -> list[LabelledImage]:
    """Draw ``counts`` images of each class at random, in the order they came.

    Raises:
        ValueError: a class has fewer images.
    """
    sample: set[Path] = set()
    for class_name, count in sorted(counts.items()):
        paths = sorted(item.image for item in images if item.class_name == class_name)
        if len(paths) < count:
            raise ValueError(f"{count} images of class {class_name} asked for, there are {len(paths)}.")
        order = np.random.RandomState(seed).permutation(len(paths))
        sample.update(paths[k] for k in order[:count])
    return [item for item in images if item.image in sample]


def split_classes(
    images: Sequence[LabelledImage],
    *,
    seed: int,
    by_group: bool = True,
    test: bool = True,
    ratios: Sequence[float] | None = None,
) -> dict[str, list[LabelledImage]]:
    """Split the images of each class into training, validation and test: the test gets a fifth, rounded down.

    Validation gets an eighth of the rest, rounded down; so 544, 500 and 456 images give 108, 100 and 91 for test and
    54, 50 and 45 for validation. Groups are split as a whole, apart for each set of classes that occur together in a
    group; where a split needs more groups than there are, they go to training.

    Args:
        images: the images.
        seed: of the random order.
        by_group: keep groups together; False splits image by image.
        test: False gives no test split.
        ratios: shares of training, validation and test in place of these; a split of share 0 is not there.

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
        shares = _shares(sum(sizes.values()), test=test) if ratios is None else ratios
        if len(sizes) < sum(share > 0 for share in shares):
            first = next(k for k, share in enumerate(shares) if share > 0)
            shares = [float(k == first) for k in range(len(SPLITS))]
        split_of |= split_groups(sizes, ratios=shares, seed=seed)
    present = [share > 0 for share in ratios] if ratios is not None else [True, True, test]
    splits: dict[str, list[LabelledImage]] = {name: [] for name, there in zip(SPLITS, present, strict=True) if there}
    for item in images:
        splits[split_of[names[item.image]]].append(item)
    for split, members in splits.items():
        for class_name in sorted({item.class_name for item in images} - {item.class_name for item in members}):
            raise ValueError(f"class {class_name} has too few images or patients: {split} gets none of it.")
    return splits


def _shares(total: int, *, test: bool) -> tuple[int, int, int]:
    """Images for training, validation and test as the study of transfer rounds them."""
    for_test = total // 5 if test else 0
    for_validation = (total - for_test) // 8
    return total - for_test - for_validation, for_validation, for_test


def leaks(training: Iterable[LabelledImage], test: Sequence[LabelledImage]) -> dict[str, int]:
    """Count what a training saw of a test split: images of it, and images of its patients."""
    training = list(training)
    files, groups = {item.image for item in training}, {item.group for item in training}
    return {
        "test_images": len(test),
        "seen_images": sum(item.image in files for item in test),
        "images_of_seen_patients": sum(item.group in groups for item in test),
    }


def as_items(images: Iterable[LabelledImage], *, root: Path, class_names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Items of a datalist: image, label (place in ``class_names``), group, source."""
    for item in images:
        yield {
            "image": item.image.relative_to(root).as_posix(),
            "label": class_names.index(item.class_name),
            "group": item.group,
            "source": item.source,
        }
