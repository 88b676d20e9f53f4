"""Lists of slices that a training or a labelling works on: some of a datalist, chosen by lot, and those of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import load_decathlon_datalist

from .datalist import check_items
from .slices import check_datalist, read_datalist
from .validation import has_no_validation


def choose_items(
    datalist: str | PathLike,
    dataset_dir: str | PathLike,
    split: str,
    *,
    n_labelled: int | None = None,
    seed: int = 0,
    rest: bool = False,
    keys: Sequence[str] = ("image",),
    optional: bool = False,
) -> list[dict[str, Any]]:
    """Choose items of a split by lot: with one seed those of a smaller number are among those of a larger.

    Args:
        datalist: the JSON file.
        dataset_dir: folder that its paths start from.
        split: name of the split.
        n_labelled: how many; None for all, in the order of the list.
        seed: of the draw.
        rest: give the items that are not chosen instead.
        keys: what each item must have.
        optional: it is the split of the validation, which a datalist may lack.

    Returns:
        the items with whole paths.

    Raises:
        FileNotFoundError, ValueError: there is no such list or split, it has fewer items, an item lacks a key, or there
            is no rest.
    """
    path = Path(datalist)
    content = read_datalist(path)
    if optional and has_no_validation(content, split):
        return []
    check_items(content, path, split, keys=keys)
    n_items = len(content[split])
    check_n_labelled(n_labelled, n_items, path, split)
    if rest and n_labelled in (None, n_items):
        raise ValueError(f"{path}: none of the {n_items} items of its split {split!r} is left, {n_labelled} labelled.")
    items = load_decathlon_datalist(path, True, split, dataset_dir)
    if n_labelled is None:
        return items
    order = np.random.default_rng(seed).permutation(n_items)
    return [items[k] for k in sorted(order[n_labelled:] if rest else order[:n_labelled])]


def check_n_labelled(n_labelled: int | None, n_items: int, datalist: str | PathLike, split: str) -> None:
    """Refuse a number of items that a split does not have.

    Raises:
        ValueError: it is so.
    """
    if n_labelled is not None and not (isinstance(n_labelled, int) and 0 <= n_labelled <= n_items):
        raise ValueError(f"n_labelled is {n_labelled}, and {datalist} has {n_items} items in its split {split!r}.")


def join_items(
    datalist: str | PathLike,
    dataset_dir: str | PathLike,
    split: str,
    *,
    n_labelled: int | None = None,
    seed: int = 0,
    added_dir: str | PathLike | None = None,
    keys: Sequence[str] = ("image", "label"),
    at_least: int = 1,
) -> list[dict[str, Any]]:
    """Join labelled slices, chosen by lot, with the training items of another folder, such as generated ones.

    Args:
        datalist: as in :func:`choose_items`, as are the next four.
        dataset_dir: the same.
        split: the same.
        n_labelled: the same; 0 for those of the other folder alone.
        seed: the same.
        added_dir: the other folder, with its datalist.json; None adds nothing.
        keys: of the entries.
        at_least: number of items that is needed, such as those of a batch whose images shall differ.

    Returns:
        the entries of each by their keys, whole paths.

    Raises:
        FileNotFoundError, ValueError: as in :func:`choose_items`; the two lists have other classes or another window
            of Hounsfield units; the other folder has slices of this list's validation or test split; nothing is left,
            or less than is needed.
    """
    items = choose_items(datalist, dataset_dir, split, n_labelled=n_labelled, seed=seed, keys=keys)
    added: list[dict[str, Any]] = []
    if added_dir is not None:
        other, content = Path(added_dir) / "datalist.json", read_datalist(datalist)
        added = choose_items(other, added_dir, "training", keys=keys)
        _refuse_held_out(added, other, content, Path(dataset_dir))
        labels = content.get("labels") or {}
        check_datalist(other, [labels[key] for key in sorted(labels, key=int)], content.get("window_hu"))
    if not items and not added:
        raise ValueError("n_labelled is 0 and there is no added_dir: nothing is left to train on.")
    if len(items) + len(added) < at_least:
        raise ValueError(
            f"{datalist}: {len(items) + len(added)} slices of its split {split!r} are fewer than the {at_least} of a "
            "batch: give a smaller batch_size."
        )
    print(f"{len(items)} slices of {datalist} and {len(added)} added ones are trained on", flush=True)
    return [{key: item[key] for key in keys} for item in items + added]


def _refuse_held_out(
    items: Sequence[Mapping[str, Any]], datalist: Path, content: Mapping[str, Any], dataset_dir: Path
) -> None:
    """Refuse to train on slices that another list keeps for validation or test."""
    paths = {Path(item["image"]).resolve() for item in items}
    for split in ("validation", "test"):
        shared = [name for item in content.get(split, []) if (dataset_dir / (name := item["image"])).resolve() in paths]
        if shared:
            raise ValueError(
                f"{datalist}: {len(shared)} of its slices are of the {split} split of {dataset_dir}, the first is "
                f"{shared[0]}: they must not be trained on."
            )
