"""Series of slices, of which a patient may have several: their numbers, and the splits that patterns give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .annotations import Omissions


class Slice(NamedTuple):
    """One slice.

    Args:
        grey: float32 or uint8 (H, W), from 0 to 255.
        labels: uint8 (H, W) of class ids, or None.
        position: its place: mm along the series, or the row and column of a crop in px.
        name: what tells it from others of its series, besides its number.
    """

    grey: np.ndarray
    labels: np.ndarray | None = None
    position: float | tuple[int, int] | None = None
    name: str = ""


@dataclass(frozen=True)
class Series:
    """Slices of one patient that belong together.

    Args:
        name: its path from the data set's folder, by which patterns choose it; it is not written.
        patient: whom it is of, which is not written either.
        read: gives its slices, or raises ``ValueError`` with a sentence on why it is of no use.
        files: what it is read from, for its hash.
    """

    name: str
    patient: str
    read: Callable[[], Iterator[Slice]]
    files: Sequence[Path]


class Requirement(NamedTuple):
    """What a slice must show to be kept: a least share of its pixels of some ids; and how those without are called."""

    ids: frozenset[int]
    share: float
    lack: str


@dataclass(frozen=True)
class SliceSet:
    """Series of slices: what the data set is, and how its slices come to one size.

    Args:
        name: of the data set.
        description: what it holds, with its source.
        licence: of the data.
        modality: how the slices were taken.
        series: its series.
        labels: names of the classes in the order of their ids; empty without label maps.
        labeller: who made the label maps.
        window_hu: HU that become 0 and 255, for CT.
        ratios: shares of training, validation and test where none are asked for.
        only_split: the one split that all is for, where patients are not known.
        crops: slices are cut into squares at their own scale; otherwise the whole of a square slice is reduced.
        requirement: what a slice must show to be kept.
        omissions: what was left out before, by its reason.
        facts: more entries of the datalist.
    """

    name: str
    description: str
    licence: str
    modality: str
    series: Sequence[Series]
    labels: Sequence[str] = ()
    labeller: str | None = None
    window_hu: tuple[float, float] | None = None
    ratios: tuple[float, float, float] = (60, 10, 30)
    only_split: str | None = None
    crops: bool = False
    requirement: Requirement | None = None
    omissions: Omissions = field(default_factory=Omissions)
    facts: Mapping[str, Any] = field(default_factory=dict)


def splits_by_pattern(series: Sequence[Series], patterns: Mapping[str, str | None]) -> dict[str, str]:
    """Give each series the split whose pattern its name fits, and training to the others; nothing without patterns.

    Raises:
        ValueError: a pattern fits no series, two splits claim one, or the series of a patient are in two.
    """
    claims: dict[str, str] = {}
    for split, text in patterns.items():
        for pattern in (word.strip() for word in (text or "").split(",")) if text else ():
            names = [one.name for one in series if fnmatchcase(one.name, pattern)]
            if not names:
                raise ValueError(f"--{split} {pattern}: no series goes by this name")
            if twice := [name for name in names if claims.setdefault(name, split) != split]:
                raise ValueError(f"--{split} {pattern}: {twice[0]} is in {claims[twice[0]]} too")
    if not claims:
        return {}
    splits = {one.name: claims.get(one.name, "training") for one in series}
    first: dict[str, Series] = {}
    for one in series:
        other = first.setdefault(one.patient, one)
        if splits[one.name] != splits[other.name]:
            raise ValueError(
                f"{other.name} would be in {splits[other.name]} and {one.name} in {splits[one.name]}, but they are of "
                "one patient: let the patterns take both, or none"
            )
    return splits


def number(series: Sequence[Series]) -> dict[str, Series]:
    """Name the series by the numbers of patient and series, such as p01_s1, in the order of patients and names."""
    of_patient: dict[str, list[Series]] = {}
    for one in sorted(series, key=lambda one: (one.patient, one.name)):
        of_patient.setdefault(one.patient, []).append(one)
    width = max(2, len(str(len(of_patient))))
    return {
        f"p{patient:0{width}d}_s{rank:0{len(str(len(members)))}d}": one
        for patient, members in enumerate(of_patient.values(), start=1)
        for rank, one in enumerate(members, start=1)
    }


def group_of(stem: str) -> str:
    """The number of the patient in the name of a series or slice."""
    return stem.partition("_")[0]


def group_in(item: Mapping[str, Any]) -> str:
    """The number of the patient of an item."""
    return item["group"]
