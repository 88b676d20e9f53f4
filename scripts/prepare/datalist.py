"""Datalists: groups that stay together, the split of a data set by them, and the file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clinbundles.transforms.readers.folder import IMAGE_SUFFIXES, image_stem, image_suffix

SPLITS = ("training", "validation", "test")
# Bits of 256 that may differ between near-duplicates. Kvasir-SEG has four such pairs, at 1, 3, 4 and 13 bits; the next
# closest of its half a million pairs are at 36. The closest frames of different PolypGen sequences are at 50.
NEAR_DUPLICATE_BITS = 24


def difference_hash(image: np.ndarray) -> np.ndarray:
    """Hash the coarse layout of an image: is each of 16 x 16 grey cells darker than its right neighbour?

    Args:
        image: uint8 (H, W) or (H, W, 3).

    Returns:
        256 bits.
    """
    grey = np.asarray(Image.fromarray(image).convert("L").resize((17, 16), Image.Resampling.BOX))
    return (grey[:, 1:] > grey[:, :-1]).ravel()


def near_duplicates(hashes: Sequence[np.ndarray], *, bits: int) -> list[tuple[int, int]]:
    """Pair the images whose hashes differ in at most ``bits`` of 256 bits, by their places in ``hashes``."""
    signs = np.where(np.asarray(hashes).reshape(len(hashes), 256), np.float32(1), np.float32(-1))
    pairs = []
    for first, row in enumerate(signs[:-1]):
        differing = (256 - signs[first + 1 :] @ row) / 2
        pairs += [(first, first + 1 + int(k)) for k in np.flatnonzero(differing <= bits)]
    return pairs


def join_groups(groups: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Join the groups of items that belong together.

    Args:
        groups: group of each item.
        pairs: places of two items that belong together.

    Returns:
        The group of each item; joined groups go by the name of the first of them in order.
    """
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            group = parent[group]
        return group

    for first, second in pairs:
        name, other = sorted((root(groups[first]), root(groups[second])))
        parent[other] = name
    return [root(group) for group in groups]


def split_groups(sizes: Mapping[str, int], *, ratios: Sequence[float], seed: int) -> dict[str, str]:
    """Give each group one of the splits, the same whatever the order of ``sizes``.

    Large groups are placed first, equal ones in random order, each into the split that lacks most. So a split holds
    at most one group's worth of items too many, and groups of one item give the ratios to the item. Each split gets
    at least one group, unless its share is 0: then it gets none.

    Args:
        sizes: number of items in each group.
        ratios: shares of training, validation and test, of any sum.
        seed: of the random order.

    Raises:
        ValueError: there are fewer groups than splits.
    """
    shared = [name for name, ratio in zip(SPLITS, ratios, strict=True) if ratio > 0]
    if len(sizes) < len(shared):
        raise ValueError(
            f"{sum(sizes.values())} images in {len(sizes)} groups are too few to split: {', '.join(shared)} need a "
            "group each (images of one patient or sequence, and near-duplicates, are one)."
        )
    names = sorted(sizes)
    order = [names[k] for k in np.random.RandomState(seed).permutation(len(names))]
    places = dict(zip(SPLITS, _whole_shares(sum(sizes.values()), ratios), strict=True))
    splits: dict[str, str] = {}
    for position, group in enumerate(sorted(order, key=lambda name: -sizes[name])):
        empty = [name for name in shared if name not in splits.values()]
        open_splits = empty if len(order) - position <= len(empty) else shared
        splits[group] = max(open_splits, key=lambda name: places[name])
        places[splits[group]] -= sizes[group]
    return splits


def _whole_shares(total: int, ratios: Sequence[float]) -> list[int]:
    """Split ``total`` by ``ratios`` into whole numbers; what is left over goes to the largest remainders."""
    exact = np.asarray(ratios, dtype=np.float64) / sum(ratios) * total
    # 0.6 + 0.2 + 0.2 is not quite 1: an exact share must not become one less by rounding down.
    shares = np.floor(exact + 1e-6).astype(int)
    for k in np.argsort(shares - exact, kind="stable")[: total - shares.sum()]:
        shares[k] += 1
    return shares.tolist()


def read_official_split(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Read the split of each image from train.txt, val.txt and perhaps test.txt, one image name a line.

    Args:
        folder: folder of the lists.
        names: images of the data set, without suffix; each must be in one list, and no other.

    Raises:
        ValueError: there are no such lists, or they and ``names`` do not agree.
    """
    lists = {"training": folder / "train.txt", "validation": folder / "val.txt", "test": folder / "test.txt"}
    if not (lists["training"].is_file() and lists["validation"].is_file()):
        raise ValueError(f"{folder}: no official split here (train.txt and val.txt).")
    splits: dict[str, str] = {}
    for split, path in lists.items():
        lines = path.read_text(encoding="utf-8-sig").splitlines() if path.is_file() else []
        for line in (line.strip() for line in lines if line.strip()):
            name = image_stem(Path(line)) if image_suffix(Path(line)) in IMAGE_SUFFIXES else line
            if name in splits:
                raise ValueError(f"{path}: {name} is listed twice, here and in {lists[splits[name]].name}.")
            splits[name] = split
    omissions, strangers = sorted(set(names) - splits.keys()), sorted(splits.keys() - set(names))
    if omissions:
        raise ValueError(f"{folder}: {len(omissions)} images are in no list, the first is {omissions[0]}.")
    if strangers:
        raise ValueError(f"{folder}: {len(strangers)} listed images are not there, the first is {strangers[0]}.")
    return splits


def parse_ratios(ratios: Any) -> list[float]:
    """Check the shares of training, validation and test, as ``6,2,2`` gives them; a split of share 0 stays empty."""
    numbers = list(ratios) if isinstance(ratios, tuple | list) else [ratios]
    fits = [isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) and n >= 0 for n in numbers]
    if len(numbers) != len(SPLITS) or not all(fits) or not any(numbers):
        raise ValueError(f"--ratios is {ratios!r}: expected three numbers, not all of them 0, such as 6,2,2 or 0,0,1")
    return numbers


def check_sum(ratios: Sequence[float], *, images: int) -> None:
    """Refuse ratios that were surely meant otherwise, such as 6,2,3."""
    if not any(math.isclose(sum(ratios), total) for total in (1, 10, 100, images)):
        raise ValueError(
            f"--ratios {ratios} sum to {sum(ratios):g}: expected 1, 10, 100 or the number of images, {images}"
        )


def check_seed(seed: Any) -> None:
    """Refuse what seeds no random order."""
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ValueError(f"--seed is {seed!r}: expected a whole number from 0 to 2**32 - 1")


def check_output(output: str | Path, *, flag: str = "output") -> Path:
    """Refuse a file that cannot be written, before any work."""
    target = Path(output)
    if target.is_dir() or not target.parent.is_dir():
        raise ValueError(f"--{flag} {target}: expected a file in a folder that exists")
    return target


def items_of(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Items of all splits of a datalist."""
    return [item for split in SPLITS for item in content.get(split, [])]


def datalist_as_json(content: Mapping[str, Any]) -> str:
    """Write a datalist as JSON with one item a line: fixations would otherwise take five lines each."""
    entries = []
    for key, value in content.items():
        text = json.dumps(value)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n" + ",\n".join("    " + json.dumps(item) for item in value) + "\n  ]"
        entries.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}\n"
