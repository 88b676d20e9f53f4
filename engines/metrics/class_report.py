"""The report of a classifier: scores with intervals, confusion matrix and reliability."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ignite.engine import Engine, Events
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..outputs.files import replacing
from ..outputs.per_image import patients_of, read_class_table
from ..outputs.summary import UNKNOWN_GROUPS, write_summary
from .calibration import ReliabilityBins, apply_temperature, describe_bound, fit_temperature, reliability_bins
from .classification import (
    CLASS_SCORES,
    SCORES,
    class_auc,
    confusion_matrices,
    score_intervals,
)
from .intervals import (
    FEWEST_GROUPS,
    N_RESAMPLES,
    describe_intervals,
    mean_interval,
    number_groups,
    rounded,
    with_interval,
)


def write_class_report(
    output_dir: str | os.PathLike,
    class_names: Sequence[str],
    *,
    validation_table: str | os.PathLike | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Write ``metrics.json`` and two pictures beside the table ``<output_dir>/per_image.csv``.

    metrics.json: what each has (see :mod:`..outputs.summary`), with groups that are patients; the confusion matrix;
    temperature, a note where it lies at the bound of its search, and expected calibration error.
    ``confusion.png`` draws the matrix, ``reliability.png`` accuracy over confidence, before and after the temperature.
    Images that could not be read are counted and left out.

    Args:
        output_dir: folder of the table. Columns: image, label and prediction (names of classes), probability_<class>
            for each class and, if there are any, failure (a sentence), source and patient (a number).
        class_names: of the classes, in the order of the matrix.
        validation_table: table of the same form of the validation set, on which the temperature is fitted.
        seed: of the resampling.

    Returns:
        the content of ``metrics.json``.

    Raises:
        FileNotFoundError: no such table.
        ValueError: a column is missing; an image has no label, one that is no class, or no probabilities; no image.
    """
    folder, names = Path(output_dir), list(class_names)
    table, failures = read_class_table(folder / "per_image.csv", names)
    bins, calibration = _calibrate(table, names, validation_table)
    metrics = {
        "images": len(table),
        "failures": failures,
        **_score(table, names, seed),
        "calibration": calibration,
        "sources": _by_source(table),
    }
    write_summary(folder, metrics, name="metrics.json")
    for name, figure in (
        ("confusion.png", _draw_confusion(np.array(metrics["confusion_matrix"]["counts"]), names)),
        ("reliability.png", _draw_reliability(bins)),
    ):
        with replacing(folder / name) as partial:
            figure.savefig(partial, format="png", dpi=130)
    if calibration["temperature_note"]:
        print(calibration["temperature_note"])
    accuracy = metrics["scores"]["val_accuracy"]
    ends = "" if accuracy["low"] is None else f" [{accuracy['low']}, {accuracy['high']}]"
    print(
        f"{folder / 'metrics.json'}: accuracy {accuracy['value']}{ends}, macro F1 "
        f"{metrics['scores']['val_macro_f1']['value']}."
    )
    return metrics


class ClassReport:
    """Write the report of a classifier at the end of its evaluator, once its table is there.

    Args:
        output_dir, class_names, options: as :func:`write_class_report` takes them.
    """

    def __init__(self, output_dir: str | os.PathLike, class_names: Sequence[str], **options: Any) -> None:
        self.output_dir, self.class_names, self.options = output_dir, class_names, options

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose table is written with its epoch."""
        engine.add_event_handler(Events.COMPLETED, self.write)

    def write(self) -> None:
        """Write the report, see :func:`write_class_report`."""
        write_class_report(self.output_dir, self.class_names, **self.options)


def _arrays(table: pd.DataFrame, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give labels (N,), predictions (N,) and probabilities (N, K) of a table."""
    index = pd.Index(names)
    labels, predictions = (index.get_indexer(pd.Index(table[column])) for column in ("label", "prediction"))
    return labels, predictions, table[[f"probability_{name}" for name in names]].to_numpy(dtype=float)


def _score(table: pd.DataFrame, names: Sequence[str], seed: int) -> dict[str, Any]:
    labels, predictions, probabilities = _arrays(table, names)
    patients = patients_of(table)
    matrix = confusion_matrices(labels, predictions, num_classes=len(names))
    intervals = score_intervals(labels, predictions, probabilities, patients=patients, seed=seed)
    by_class = {name: score(matrix) for name, score in CLASS_SCORES.items()} | {"auc": class_auc(labels, probabilities)}
    n_groups = int(number_groups(patients, len(table)).max()) + 1
    unit = UNKNOWN_GROUPS if patients is None else "patients"
    notes = [_describe(n_groups, unit, seed)]
    for name, images, predictions_of_it in zip(names, matrix.sum(1), matrix.sum(0), strict=True):
        if not images:
            notes.append(f"{name} has no image: its recall is 0/0, counts as 0 and lowers the macro scores.")
        if not predictions_of_it:
            notes.append(f"{name} is never predicted: its precision is 0/0 and counts as 0.")
    return {
        "groups": n_groups,
        "unit": unit,
        "scores": {name: with_interval(score(matrix), intervals[name]) for name, score in SCORES.items()},
        "classes": {
            name: {"images": int(matrix[k].sum())}
            | {score: with_interval(values[k], intervals[score][k]) for score, values in by_class.items()}
            for k, name in enumerate(names)
        },
        "confusion_matrix": {"rows": "label", "columns": "prediction", "classes": names, "counts": matrix.tolist()},
        "notes": notes,
    }


def _describe(n_groups: int, unit: str, seed: int) -> str:
    text = f"Intervals: {describe_intervals(n_groups, unit)}"
    if n_groups >= FEWEST_GROUPS:
        text += f", {N_RESAMPLES} resamples, seed {seed}, those that lack a class left out"
    elif n_groups > 1:
        text += ", of the accuracy alone where one of them has all images of a class"
    return text + (
        f"; of a score of 0 or 1 Wilson's over the {unit.partition(',')[0]} behind it." if n_groups > 1 else "."
    )


def _calibrate(
    table: pd.DataFrame, names: Sequence[str], validation_table: str | os.PathLike | None
) -> tuple[dict[str, ReliabilityBins], dict[str, Any]]:
    """Find the bins to draw, by their title, and the entry of the report."""
    labels, _, probabilities = _arrays(table, names)
    bins, note = {"as predicted": reliability_bins(probabilities, labels)}, ""
    if validation_table is not None:
        validation_labels, _, validation = _arrays(read_class_table(Path(validation_table), names)[0], names)
        temperature = fit_temperature(validation, validation_labels)
        note = describe_bound(temperature)
        bins[f"temperature {temperature:.3g}"] = reliability_bins(apply_temperature(probabilities, temperature), labels)
    errors = [rounded(each.expected_calibration_error) for each in bins.values()]
    return bins, {
        "expected_calibration_error": errors[0],
        "temperature": None if validation_table is None else rounded(temperature),
        "temperature_note": note,
        "expected_calibration_error_after_temperature": None if validation_table is None else errors[1],
    }


def _by_source(table: pd.DataFrame) -> dict[str, dict[str, Any]] | None:
    """Count the images of each class by source, and find its accuracy: a source of one class invites a shortcut."""
    if "source" not in table:
        return None
    right = table["label"] == table["prediction"]
    groups = table.assign(source=table["source"].fillna("unknown"), right=right).groupby("source")
    return {
        str(source): {
            "images": len(group),
            "labels": {str(name): int(n) for name, n in group["label"].value_counts().items()},
            "scores": {"val_accuracy": _mean(group)},
        }
        for source, group in groups
    }


def _mean(rows: pd.DataFrame) -> dict[str, float | None]:
    right = rows["right"].to_numpy(dtype=bool)
    return with_interval(right.mean(), mean_interval(right, patients_of(rows)))


def _draw_confusion(matrix: np.ndarray, names: Sequence[str]) -> Figure:
    figure = Figure(figsize=(1.1 * len(names) + 2.6, 1.1 * len(names) + 2), layout="tight")
    axes: Axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        share = shares[row, column]
        axes.text(column, row, f"{count}\n{100 * share:.1f} %", ha="center", va="center", color="wk"[int(share < 0.5)])
    axes.set(xlabel="prediction", ylabel="label", xticks=range(len(names)), yticks=range(len(names)))
    axes.set_xticklabels(names, rotation=30, ha="right")
    axes.set_yticklabels(names)
    return figure


def _draw_reliability(bins: dict[str, ReliabilityBins]) -> Figure:
    """Draw a panel each: bars of the accuracy, the diagonal where it should be, and how many images a bin has."""
    figure = Figure(figsize=(4.2 * len(bins), 4.4), layout="tight")
    for axes, (title, values) in zip(figure.subplots(1, len(bins), squeeze=False)[0], bins.items(), strict=True):
        width, occupied = values.edges[1], values.counts > 0
        axes.bar(values.edges[:-1][occupied], values.accuracy[occupied], width, align="edge", edgecolor="white")
        axes.plot(values.confidence[occupied], values.accuracy[occupied], "ko", markersize=3)
        axes.plot([0, 1], [0, 1], "k:", linewidth=1)
        for left, count in zip(values.edges[:-1][occupied], values.counts[occupied], strict=True):
            axes.text(left + width / 2, 1.01, count, ha="center", fontsize=6)
        error = values.expected_calibration_error
        axes.set_title(f"{title}: ECE {error:.3f}", fontsize=10, pad=14)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    return figure
