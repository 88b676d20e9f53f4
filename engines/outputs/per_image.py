"""The table ``per_image.csv`` of an evaluation, one row an image: its reader, its patients and its weights."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ignite.engine import Engine

from .growing_table import read_whole_rows

TEXTS = ("image", "label", "prediction", "failure", "source", "weights")


def read_per_image(path: Path, *, columns: Sequence[str] = ()) -> tuple[pd.DataFrame, int]:
    """Read the table of an evaluation: its rows without a failure, and the number of those with one.

    A last row that a kill has torn is left out. A name loses the "./" that keeps a spreadsheet from taking it for a
    formula, see :func:`.files.distinct_names`.

    Args:
        path: the file.
        columns: those that must be there beside "image".

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no table, or a column is missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such table of predictions.")
    try:
        text = read_whole_rows(path)
        # Only an empty field is missing: a class may be called None, or 1, and a file nan.
        missing = {name: [""] if name in TEXTS else ["", "nan"] for name in pd.read_csv(io.StringIO(text), nrows=0)}
        table = pd.read_csv(
            io.StringIO(text), dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=missing
        )
    except ValueError as error:
        raise ValueError(f"{path}: is no table ({error}).") from error
    for column in ("image", *columns):
        if column not in table:
            raise ValueError(f"{path}: has no column {column}, only {', '.join(table)}.")
    table["image"] = table["image"].str.removeprefix("./")
    failed = table["failure"].notna() if "failure" in table else pd.Series(False, index=table.index)
    return table[~failed].reset_index(drop=True), int(failed.sum())


def read_class_table(path: Path, class_names: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """Read the table of a classifier as :func:`read_per_image` does, and check that its rows can be scored.

    Args:
        path: the file, with the columns image, label and prediction (names of classes) and probability_<class>.
        class_names: of all classes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column is missing; a row has no label, one that is no class, or no probabilities; no row is left.
    """
    probabilities = [f"probability_{name}" for name in class_names]
    table, failures = read_per_image(path, columns=("label", "prediction", *probabilities))
    if table.empty:
        raise ValueError(f"{path}: has no image to score, only {failures} failures.")
    for column in ("label", "prediction"):
        if (wrong := ~table[column].isin(class_names)).any():
            row, value = table.loc[wrong, "image"].iloc[0], table.loc[wrong, column].iloc[0]
            fault = f"has no {column}" if pd.isna(value) else f"has {column} {value!r}"
            raise ValueError(f"{path}: {row} {fault}, expected one of {', '.join(class_names)}.")
    for column in probabilities:
        # A little more than 1 is what half precision rounds to.
        if (wrong := ~pd.to_numeric(table[column], errors="coerce").between(0, 1.001)).any():
            row, value = table.loc[wrong, "image"].iloc[0], table.loc[wrong, column].iloc[0]
            raise ValueError(f"{path}: {row} has {column} {value}, expected a number from 0 to 1.")
    return table, failures


def patients_of(table: pd.DataFrame) -> np.ndarray | None:
    """Give the number of each image's patient or group (N,), NaN where unknown; None for a table without them."""
    return table["patient"].to_numpy() if "patient" in table else None


def number_patients(groups: Sequence[Any]) -> list[Any]:
    """Number groups in the order of their appearance, because what a group is called may tell who it is.

    Args:
        groups: of each image its patient or whatever else the split keeps together; None where unknown.

    Returns:
        a number for each, empty text where unknown.
    """
    numbers = {group: number for number, group in enumerate(dict.fromkeys(g for g in groups if g is not None))}
    return ["" if group is None else numbers[group] for group in groups]


def complete_rows(
    rows: Sequence[dict[str, Any]],
    metrics: Mapping[str, Sequence[Any]],
    groups: Sequence[Any],
    sources: Sequence[Any] = (),
) -> None:
    """Add to the rows of a table the metrics of an evaluator and, where there are any, numbers of groups and sources.

    Args:
        rows: one an image; changed in place.
        metrics: values by name, one an image.
        groups: of each image its patient or other group; None where unknown.
        sources: of each image its hospital or collection; None where unknown.

    Raises:
        ValueError: a metric has another number of values than there are rows.
    """
    for name, values in metrics.items():
        if len(values) != len(rows):
            raise ValueError(f"metric {name} has {len(values)} values for {len(rows)} images.")
        for row, value in zip(rows, values, strict=True):
            row[name] = round(float(value), 6)
    if any(group is not None for group in groups):
        for row, patient in zip(rows, number_patients(groups), strict=True):
            row["patient"] = patient
    if any(source is not None for source in sources):
        for row, source in zip(rows, sources, strict=True):
            row["source"] = "" if source is None else str(source)


def name_weights(rows: Sequence[dict[str, Any]], engine: Engine) -> None:
    """Add to each row what :func:`weights_of` gives; the rows are changed in place."""
    for row in rows:
        row |= weights_of(engine)


def weights_of(engine: Engine) -> dict[str, str]:
    """Say which weights make a row and what they are for, where a loader left that in the engine's state.

    Every row says so, because rows are sorted, cut out and copied into other tables.

    Args:
        engine: the evaluator, see :class:`..checkpoint.WeightsLoader`.

    Returns:
        the row's column "weights"; nothing where none were loaded.
    """
    sentences = getattr(engine.state, "weights", ())
    return {"weights": " ".join(sentences)} if sentences else {}


class NothingUsedError(ValueError):
    """All files of a run were left out, and its table is complete."""


def say_failures(rows: Sequence[Mapping[str, Any]], engine: Engine | None = None) -> None:
    """Print how many images were used and left out, by the ``failure`` that their rows may have.

    Args:
        rows: one an image.
        engine: the evaluator; a command leaves the name of its data as ``state.run_data``, and what it says of images
            that were not listed as ``state.run_rest``.

    Raises:
        NothingUsedError: none was used.
    """
    failed = sum(bool(row.get("failure")) for row in rows)
    counts = f"{len(rows)} in, {len(rows) - failed} used, {failed} left out"
    counts += ": per_image.csv says why" if failed else ""
    data, rest = (getattr(getattr(engine, "state", None), name, None) for name in ("run_data", "run_rest"))
    print((f"{data}: " if data else "") + counts + (f"; {rest}." if rest else "."), flush=True)
    if failed == len(rows):
        raise NothingUsedError(
            f"0 of {len(rows)} images could be read: per_image.csv says why, and of the first: {rows[0]['failure']}"
        )
