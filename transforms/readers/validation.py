"""The items of a datalist that a training validates on, where there are any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from .datalist import datalist_items, read_content


def has_no_validation(content: Mapping[str, Any], split: str) -> bool:
    """Tell whether a datalist was made without validation images, which is not the same as a split that is misspelt.

    Args:
        content: of the datalist.
        split: name of the split to validate on.
    """
    return content.get(split) == [] or (split == "validation" and split not in content)


def validation_items(
    datalist: str | PathLike,
    dataset_dir: str | PathLike,
    split: str | None,
    *,
    class_names: Sequence[str] | None = None,
    needed_for: str | None = None,
) -> list[dict[str, Any]]:
    """List the items of the split that a training validates on: none where the datalist was made without it.

    Args:
        datalist: the JSON file.
        dataset_dir: folder that its paths start from.
        split: name of the split; None for no validation.
        class_names: names of the classes whose numbers the labels are; None for labels that are files.
        needed_for: why there must be some, as a clause about the training; None where it does without.

    Returns:
        the items with whole paths.

    Raises:
        FileNotFoundError, ValueError: as :func:`.datalist.datalist_items`, or there are no items and they are needed.
    """
    path = Path(datalist)
    if split is None or has_no_validation(read_content(path), split):
        if needed_for is not None:
            raise ValueError(f"{path}: there are no validation images (split {split!r}), and {needed_for}.")
        return []
    return datalist_items(path, dataset_dir, split, class_names=class_names)
