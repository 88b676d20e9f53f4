"""The items of a split of a datalist, each with what it needs, and apart from those of other splits."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai.data import load_decathlon_datalist

logger = logging.getLogger(__name__)


def datalist_items(
    datalist: str | PathLike,
    dataset_dir: str | PathLike,
    split: str,
    *,
    class_names: Sequence[str] | None = None,
    apart_from: Sequence[str | None] = (),
    compared_with: Sequence[str | None] = (),
) -> list[dict[str, Any]]:
    """List the items of a split with whole paths, as a training or an evaluation takes them.

    Args:
        datalist: the JSON file.
        dataset_dir: folder that its paths start from.
        split: name of the split.
        class_names: names of the classes whose numbers the labels are; None for labels that are files.
        apart_from: other splits; of them and this one no two may have an image in common. None, and a split that is not
            there, has no images.
        compared_with: other splits; how many images this one shares with them is logged as a warning.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_content` and :func:`check_items`, or two splits share an image.
    """
    path = Path(datalist)
    content = read_content(path)
    check_items(content, path, split, class_names=class_names)
    root = os.fspath(dataset_dir)
    _refuse_shared(content, path, root, [split, *apart_from])
    for other in _names(content, compared_with):
        if other != split and (shared := _shared(content, root, split, other)):
            logger.warning(
                "%s: %d of the %d images of its split %r stand in %r too: the values of weights that were trained on "
                "them are not those of new images.",
                path,
                len(shared),
                len(content[split]),
                split,
                other,
            )
    return load_decathlon_datalist(path, class_names is None, split, dataset_dir)


def read_content(datalist: str | PathLike) -> dict[str, Any]:
    """Read a datalist.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON of splits by name.
    """
    path = Path(datalist)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a datalist was expected there.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: is no datalist, which has splits by name.")
    return content


def check_items(
    content: Mapping[str, Any],
    path: Path,
    split: str,
    *,
    keys: Sequence[str] = ("image", "label"),
    class_names: Sequence[str] | None = None,
) -> None:
    """Refuse a split of a datalist that has no items, or one that lacks its image or its label.

    Args:
        content: of the datalist.
        path: its file, for the message.
        split: name of the split.
        keys: what each item must have.
        class_names: names of the classes whose numbers the labels are; None for labels that are files.

    Raises:
        ValueError: the message names file, split, item and field.
    """
    items = content.get(split) or []
    if not isinstance(items, list):
        raise ValueError(f"{path}: its split {split!r} is {_short(items)}, expected a list of items.")
    if not items:
        others = [name for name in ("training", "validation", "test") if content.get(name)]
        raise ValueError(f"{path}: there is no item in its split {split!r}; it has {', '.join(others) or 'no split'}.")
    for number, item in enumerate(items):
        where = f"{path}: item {number} of its split {split!r}"
        if not isinstance(item, Mapping):
            raise ValueError(f'{where} is {_short(item)}, expected an item such as {{"image": "a.png"}}.')
        for key in keys:
            value, fits, words = item.get(key), isinstance(item.get(key), str), "a path"
            if key == "label" and class_names is not None:
                fits = type(value) is int and value in range(len(class_names))
                words = f"0 to {len(class_names) - 1}, for {', '.join(class_names)}"
            if value is None or value == "":
                raise ValueError(f"{where} has no {key}: expected {words}.")
            if not fits:
                raise ValueError(f"{where} has the {key} {_short(value)}: expected {words}.")


def _refuse_shared(content: Mapping[str, Any], path: Path, root: str, splits: Sequence[str | None]) -> None:
    names = list(dict.fromkeys(_names(content, splits)))
    for position, split in enumerate(names):
        for other in names[position + 1 :]:
            if shared := _shared(content, root, split, other):
                number, first = shared[0]
                more = f", and so are {len(shared) - 1} more" if len(shared) > 1 else ""
                raise ValueError(
                    f"{path}: item {number} of its split {split!r} and item {first} of {other!r} are one image{more}: "
                    "take it out of one split; --train#dataset#data#apart_from [] trains all the same."
                )


def _names(content: Mapping[str, Any], splits: Sequence[str | None]) -> list[str]:
    return [split for split in splits if split is not None and isinstance(content.get(split), list)]


def _shared(content: Mapping[str, Any], root: str, split: str, other: str) -> list[tuple[int, int]]:
    """Pair the places of items of two splits that are of one file, by its path or by the hash that they have of it."""
    places: dict[str, int] = {}
    for number, item in enumerate(content[other]):
        for mark in _marks(item, root):
            places.setdefault(mark, number)
    pairs = (
        (number, next((places[mark] for mark in _marks(item, root) if mark in places), None))
        for number, item in enumerate(content[split])
    )
    return [(number, place) for number, place in pairs if place is not None]


def _marks(item: Any, root: str) -> list[str]:
    """What tells the image of an item from others; of what is no item, nothing."""
    if not isinstance(item, Mapping) or not isinstance(item.get("image"), str):
        return []
    digest = item.get("source_sha256")
    return [os.path.realpath(os.path.join(root, item["image"])), *([f"sha256 {digest}"] if digest else [])]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 40 else f"{text[:40]}..."
