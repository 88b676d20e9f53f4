"""The table ``per_image.csv`` of an evaluation, one row an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def number_patients(groups: Sequence[Any]) -> list[Any]:
    """Number groups in the order of their appearance, because what a group is called may tell who it is.

    Args:
        groups: of each image its patient or whatever else the split keeps together; None where unknown.

    Returns:
        a number for each, empty text where unknown.
    """
    numbers = {group: number for number, group in enumerate(dict.fromkeys(g for g in groups if g is not None))}
    return ["" if group is None else numbers[group] for group in groups]
