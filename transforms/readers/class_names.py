"""The names of the classes of a datalist, beside those of a network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def compare_class_names(
    content: Mapping[str, Any], class_names: Sequence[str], *, source: str | os.PathLike, split: str = ""
) -> None:
    """Refuse a datalist whose classes are not those of a network, or are in another order.

    Args:
        content: of the datalist: ``labels`` are the names of the classes by their numbers. Those of a split that has
            classes of its own, such as ``pretraining_labels``, come first.
        class_names: of the network, by number.
        source: the file of the datalist, for the message.
        split: the split that is used.

    Raises:
        ValueError: the message names both.
    """
    labels = content.get(f"{split.partition('_')[0]}_labels") or content.get("labels") or {}
    names = [labels[key] for key in sorted(labels, key=int)]
    if names != list(class_names):
        order = json.dumps(list(class_names))
        way_out = f", or prepare it by clinbundles prepare class_folder --class_names '{order}'"
        raise ValueError(
            f"{source}: its classes are {', '.join(names) or 'not said'}, those of the network "
            f"{', '.join(class_names)}: give --class_names as the list has them"
            f"{way_out if sorted(names) == sorted(class_names) else ''}."
        )


def check_class_names(datalist: str | os.PathLike, class_names: Sequence[str], *, split: str = "") -> None:
    """Refuse the file of a datalist as :func:`compare_class_names` does, where it says its classes.

    One that is not there is left to what reads the items: a host may hand them over itself.

    Raises:
        ValueError: the classes differ, or the file is not JSON; the message names it.
    """
    path = Path(datalist)
    if not path.is_file():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON ({error}).") from error
    if any(str(key).endswith("labels") for key in content):
        compare_class_names(content, class_names, source=path, split=split)
