"""A folder of outputs that one run has for itself: nothing of another run stays in it, and no input lies in it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..folder_lock import lock_folder, unlock_folder
from .files import input_file, input_files, write_atomically
from .growing_table import read_whole_rows

if TYPE_CHECKING:  # so that a command that looks for a folder does not wait for torch
    from ignite.engine import Engine

MARK = ".run.json"
FOLDERS = ("masks", "overlays", "label_maps", "geojson")
TABLES = ("per_image.csv", "metrics.json", "predictions.json", "scores.json", "summary.json")


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


def claim_run(output_dir: str | os.PathLike, engine: Engine) -> None:
    """Mark a folder as that of one run, before anything is written to it; the same run may begin again.

    A folder whose run could use no image is free for any other, and the tables that it left are removed.
    Until the run has ended, the folder is locked for other processes, see :func:`..folder_lock.lock_folder`.

    The mark ``.run.json`` has hashes alone: of the images (path, size and time of each file), of the weights and, where
    a command started the run, of its options. What either side does not know is not compared.

    Args:
        output_dir: made if it is not there.
        engine: the evaluator; a command leaves a hash of its options as ``state.run_options``.

    Raises:
        ValueError: the folder holds a run of other images, weights or options, files without a mark, or the images, or
            a run of another process is writing to it.
    """
    folder = Path(output_dir)
    check_apart(folder, input_files(engine))
    is_new = lock_folder(folder, doing="run")
    try:
        _mark(folder, engine)
    except BaseException:
        if is_new:
            unlock_folder(folder)
        raise
    if is_new:
        from ignite.engine import Events  # only here

        engine.add_event_handler(Events.COMPLETED, lambda: unlock_folder(folder))


def _mark(folder: Path, engine: Engine) -> None:
    """Compare the mark of a folder with a run, and write that of the run where there is none."""
    loader: Any = engine.state.dataloader
    own = {
        "images": _digest(sorted(_describe(item) for item in loader.dataset.data)),
        "weights": _digest(list(getattr(engine.state, "weights", ()))),
        "options": getattr(engine.state, "run_options", None),
    }
    present = _read_mark(folder)
    if present is None:
        _check_unused(folder)
    elif not _has_result(folder):
        for name in TABLES:
            (folder / name).unlink(missing_ok=True)
    else:
        for name, digest in own.items():
            if digest is not None and present.get(name) not in (None, digest):
                raise ValueError(f"{folder} holds a run of other {name}: choose another --output_dir.")
        own = {name: digest or present.get(name) for name, digest in own.items()}
    if own != present:
        write_atomically(folder / MARK, json.dumps(own) + "\n")


def is_free(output_dir: str | os.PathLike) -> bool:
    """Tell whether a folder is that of a run which has ended without a result, so that another may have it."""
    folder = Path(output_dir)
    if not (folder / MARK).is_file():
        return False
    try:
        is_new = lock_folder(folder, doing="run")
    except ValueError:
        return False
    if is_new:
        unlock_folder(folder)
    return not _has_result(folder)


def _has_result(folder: Path) -> bool:
    """Tell whether a run has written an image or a row of one that it could use, in the folder or in one below it."""
    if any(not file.name.startswith(".") for name in FOLDERS for file in (folder / name).glob("*")):
        return True
    try:
        texts = [read_whole_rows(path) for place in ("", "*/") for path in folder.glob(place + TABLES[0])]
        rows = [row for text in texts for row in csv.DictReader(io.StringIO(text, newline=""))]
    except (ValueError, csv.Error):
        return True
    return any(not row.get("failure") for row in rows)


def _read_mark(folder: Path) -> dict[str, Any] | None:
    """Read the mark of a folder; None without one."""
    path = folder / MARK
    if not path.exists():
        return None
    try:
        mark = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        mark = None
    if not isinstance(mark, dict) or "images" not in mark:
        raise ValueError(
            f"{path}: is no mark of a run, so that nobody knows whose files these are: choose another --output_dir."
        )
    return mark


def _check_unused(folder: Path) -> None:
    """Refuse a folder without a mark in which there are files where a run writes its own."""
    for path in (folder / name for name in (TABLES[0], *FOLDERS)):
        files = path.iterdir() if path.is_dir() else [path] if path.exists() else []
        if names := sorted(file.name for file in files if not file.name.startswith(".")):
            raise ValueError(
                f"{path.parent if path.is_file() else path} has files of another run, such as {names[0]}: "
                "choose another --output_dir."
            )


def _describe(item: Mapping[str, Any]) -> str:
    """Describe an item of a data set in one line: of its files path, size and time, and its other plain values."""
    values = {**item, "image": input_file(item)}
    return json.dumps({name: _facts(value) for name, value in values.items()}, sort_keys=True, default=_plain)


def _facts(value: Any) -> Any:
    if isinstance(value, str | os.PathLike):
        path = Path(value)
        try:
            facts = path.stat()
        except (OSError, ValueError):  # no file, or a text that cannot be the name of one
            return str(value)
        return [str(path.resolve()), facts.st_size, facts.st_mtime_ns]
    return [_facts(each) for each in value] if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else type(value).__name__


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


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
