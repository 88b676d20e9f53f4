"""A folder of outputs that one run has for itself: nothing of another run stays in it, and no input lies in it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def check_apart(output_dir: str | os.PathLike, inputs: Iterable[Path]) -> None:
    """Refuse a folder for outputs in which inputs lie, at any depth: a next run would take masks for images.

    Raises:
        ValueError: it is so; the message names the first.
    """
    folder = Path(output_dir).resolve()
    for file in inputs:
        if file.resolve().is_relative_to(folder):
            raise ValueError(
                f"{output_dir}: the images of this run lie here ({file.name}), and its outputs would be among them: "
                "choose another --output_dir."
            )


def claim_folder(folder: str | os.PathLike, names: Iterable[str]) -> None:
    """Make a folder for files of the given names, before the first of them is written.

    A run that is started again writes the same files anew. What a killed run left half written, under hidden names, is
    removed.

    Args:
        folder: made if it is not there.
        names: of all files that the run will write to it.

    Raises:
        ValueError: the folder has another run's files; nothing is changed.
    """
    path, own = Path(folder), {name.casefold() for name in names}
    present = sorted(path.iterdir()) if path.is_dir() else []
    left = [file for file in present if file.name.startswith(".") and file.name.endswith(".part")]
    for file in present:
        if not file.name.startswith(".") and file.name.casefold() not in own:
            raise ValueError(f"{path} has files of another run, such as {file.name}: choose another --output_dir.")
    for file in left:
        file.unlink(missing_ok=True)
    path.mkdir(parents=True, exist_ok=True)
