"""Lists of slices that a training or a labelling works on: some of a datalist, chosen by lot, and those of another."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import load_decathlon_datalist

from .slices import check_datalist


def choose_items(
    datalist: str | PathLike,
    dataset_dir: str | PathLike,
    split: str,
    *,
    n_labelled: int | None = None,
    seed: int = 0,
    rest: bool = False,
) -> list[dict[str, Any]]:
    """Choose items of a split by lot: with one seed those of a smaller number are among those of a larger.

    Args:
        datalist: the JSON file.
        dataset_dir: folder that its paths start from.
        split: name of the split.
        n_labelled: how many; None for all, in the order of the list.
        seed: of the draw.
        rest: give the items that are not chosen instead.

    Returns:
        the items with whole paths.

    Raises:
        FileNotFoundError, ValueError: there is no such list or split, or it has fewer items.
    """
    path = Path(datalist)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a datalist was expected there.")
    n_items = len(json.loads(path.read_text(encoding="utf-8")).get(split, []))
    if not n_items:
        raise ValueError(f"{path}: there is no item in its split {split!r}.")
    if n_labelled is not None and not 0 <= n_labelled <= n_items:
        raise ValueError(f"n_labelled is {n_labelled}, and {path} has {n_items} items in its split {split!r}.")
    items = load_decathlon_datalist(path, True, split, dataset_dir)
    if n_labelled is None:
        return [] if rest else items
    order = np.random.default_rng(seed).permutation(n_items)
    return [items[k] for k in sorted(order[n_labelled:] if rest else order[:n_labelled])]


def join_items(
    datalist: str | PathLike,
    dataset_dir: str | PathLike,
    split: str,
    *,
    n_labelled: int | None = None,
    seed: int = 0,
    added_dir: str | PathLike | None = None,
) -> list[dict[str, Any]]:
    """Join labelled slices, chosen by lot, with the training items of another folder, such as generated ones.

    Args:
        datalist: as in :func:`choose_items`, as are the next four.
        dataset_dir: the same.
        split: the same.
        n_labelled: the same; 0 for those of the other folder alone.
        seed: the same.
        added_dir: the other folder, with its datalist.json; None adds nothing.

    Returns:
        ``image`` and ``label`` of each, whole paths.

    Raises:
        FileNotFoundError, ValueError: as in :func:`choose_items`; the two lists have other classes or another window
            of Hounsfield units; nothing is left.
    """
    items = choose_items(datalist, dataset_dir, split, n_labelled=n_labelled, seed=seed)
    added: list[dict[str, Any]] = []
    if added_dir is not None:
        other, content = Path(added_dir) / "datalist.json", json.loads(Path(datalist).read_text(encoding="utf-8"))
        added = choose_items(other, added_dir, "training")
        labels = content.get("labels") or {}
        check_datalist(other, [labels[key] for key in sorted(labels, key=int)], content.get("window_hu"))
    if not items and not added:
        raise ValueError("n_labelled is 0 and there is no added_dir: nothing is left to train on.")
    print(f"{len(items)} slices of {datalist} and {len(added)} added ones are trained on", flush=True)
    return [{key: item[key] for key in ("image", "label")} for item in items + added]
