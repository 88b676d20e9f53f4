"""What a data set in its official layout is: its pairs, and what they show."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from .datalist import Record
from .label_maps import foreground_of


@dataclass(frozen=True)
class DataSet:
    """What a layout tells: the folder that the data set lies in (with its official lists), what it is, its records.

    Args:
        folder: folder of the data set, with its official lists.
        name: of the data set.
        description: what it holds, with its source.
        licence: of the data.
        records: its pairs.
        label: what the masks mark.
        modality: how the images were taken.
        ratios: shares of training, validation and test where none are asked for.
        join_duplicates: whether near-duplicates are looked for, and kept in one section. The hash behind it sees the
            coarse layout of an image, which tells video frames apart, but not one fundus or one culture from another.
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


def own_folder(root: Path, name: str, *, holds: str) -> Path:
    """The folder called ``name`` where ``root`` is the one above it, else ``root`` itself."""
    is_above = not any(root.glob(holds)) and (root / name).is_dir()
    return root / name if is_above else root


def with_foreground(
    records: Iterable[Record], *, foreground: Collection[int], known: Collection[int] | None = None
) -> Iterator[Record]:
    """Records with label maps in; the same out, with the conversion to ``foreground`` or not of each."""
    for record in records:
        label = record.label
        convert = partial(foreground_of, label, foreground=foreground, known=known) if label else None
        yield replace(record, convert=convert)
