"""The files of a run that MLflow keeps: texts, overlays under numbers, and the report of an evaluation."""

from __future__ import annotations

import csv
import functools
import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mlflow

# Numbers and pictures of all images together; what is not named here may name a file or a patient, and stays.
REPORTS = ("metrics.json", "summary.json", "cost.json", "confusion.png", "reliability.png")
CLASSES = ("label", "prediction", "correct")
MEASURES = ("val_", "probability_", "share_", "both_", "either_")


class Artifact(NamedTuple):
    """A file for MLflow: its name there, the file here, what `send(client, run_id)` uploads."""

    name: str
    file: Path
    send: functools.partial[None]


def overlays_in(folder: Path, *, since: float) -> Iterator[Artifact]:
    """Find the pictures in `overlays` folders that are not older than a time.

    They are numbered in the order of their names, for a file's name may be a patient's; the local record has both.

    Args:
        folder: of the run's outputs.
        since: seconds since the epoch.
    """
    pictures = [p for p in folder.rglob("*.png") if "overlays" in p.relative_to(folder).parts and _is_new(p, since)]
    for index, path in enumerate(sorted(pictures)):
        name = f"{index:04d}.png"
        yield Artifact(f"overlays/{name}", path, functools.partial(_log_copy, path=path, folder="overlays", name=name))


def reports_in(folder: Path, *, since: float) -> Iterator[Artifact]:
    """Find what an evaluation reports of all its images together, and its table without what tells one from another.

    Args:
        folder: of the evaluation's outputs.
        since: seconds since the epoch; older files are of another run.
    """
    for name in REPORTS:
        if _is_new(path := folder / name, since):
            send = functools.partial(_log_copy, path=path, folder="report", name=name)
            yield Artifact(f"report/{name}", path, send)
    if _is_new(path := folder / "per_image.csv", since) and (text := anonymous_table(path)):
        yield Artifact(f"report/{path.name}", path, functools.partial(log_text, text=text, name=f"report/{path.name}"))


def anonymous_table(path: Path) -> str:
    """Give a table of images with their numbers in it for names, and of its columns the classes and measures alone.

    Args:
        path: a `per_image.csv`.

    Returns:
        CSV; an empty text where the table has no such column.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        of_classes = CLASSES if any(column.startswith("probability_") for column in columns) else ()
        names = [column for column in columns if column in of_classes or column.startswith(MEASURES)]
        rows = [[number, *(row[name] for name in names)] for number, row in enumerate(reader)]
    if not names:
        return ""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["number", *names], *rows])
    return text.getvalue()


def log_text(client: mlflow.MlflowClient, run_id: str, *, text: str, name: str) -> None:
    """Upload a text as the file `name`."""
    client.log_text(run_id, text, name)


def _log_copy(client: mlflow.MlflowClient, run_id: str, *, path: Path, folder: str, name: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        client.log_artifact(run_id, str(shutil.copyfile(path, Path(temporary) / name)), folder)


def _is_new(path: Path, since: float) -> bool:
    return path.is_file() and path.stat().st_mtime >= since - 2
