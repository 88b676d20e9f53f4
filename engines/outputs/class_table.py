"""One table of predicted classes and probabilities, written while an evaluator runs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from ...transforms.readers.loading import FAILURE
from .claim import claim_run
from .files import distinct_names, input_file, input_files, write_atomically, write_csv_atomically
from .growing_table import GrowingTable
from .per_image import name_weights, number_patients, say_failures, weights_of
from .summary import summarize_classes, write_summary


class ClassTableWriter:
    """Write ``per_image.csv``, a row as soon as an image is done, and ``predictions.json`` at the end of the epoch.

    Beside them ``summary.json`` counts what the images are called.

    Columns: image; label where the items have one; prediction; probability_<class> for each class; correct (0 or 1)
    where there is a label; failure (why the file could not be read, or empty); warning (what its reader says of it);
    source and patient where the items have ``source`` and ``group``; the weights with what they are for.

    An image is named by its file, with folders only where two files have the same name. A patient is a number in the
    order of appearance: what a group is called may tell who it is. A file that could not be read has no prediction, no
    probabilities and no correct. Probabilities have the 9 digits that give a float32 back.

    Args:
        output_dir: folder for the files.
        class_names: names of the classes, by index.
        pred_key: key of the probabilities (num_classes,) of an item.
        label_key: key of the class index of an item.
        says_counts: print how many images were used; without, only where some were left out.

    Raises:
        ValueError: ``class_names`` are fewer than two or not distinct; while running, a prediction that is not one
            probability a class, or a label that is no class; once both files are written, none of the images could be
            read.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        class_names: Sequence[str],
        *,
        pred_key: str = "pred",
        label_key: str = "label",
        says_counts: bool = True,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.class_names = list(class_names)
        self.pred_key = pred_key
        self.label_key = label_key
        self.says_counts = says_counts
        if len(set(self.class_names)) != len(self.class_names) or len(self.class_names) < 2:
            raise ValueError(f"class_names are {self.class_names}, expected two or more different ones.")
        self.items: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.keep_batch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        """Begin a new table."""
        files = input_files(engine)
        claim_run(self.output_dir, engine)
        self._names = distinct_names(files)
        self.table = GrowingTable(self.output_dir / "per_image.csv")
        self.items = []

    def keep_batch(self, engine: Engine) -> None:
        """Keep what the table needs of the batch just done."""
        batch: Any = engine.state.batch  # lists of items: MONAI evaluators decollate
        output: Any = engine.state.output
        for entries, results in zip(batch, output, strict=True):
            item = self._facts({**entries, **results})
            self.items.append(item)
            self.table.add(self._row(item, set(item)) | weights_of(engine))

    def _facts(self, item: dict[str, Any]) -> dict[str, Any]:
        path = input_file(item)
        facts: dict[str, Any] = {"path": path, "failure": item.get(FAILURE) or "", "probabilities": None}
        facts["warning"] = item.get("warning") or ""
        facts |= {key: item[key] for key in ("source", "group") if item.get(key) is not None}
        if item.get(self.label_key) is not None:  # MONAI sets None where there is none
            facts["label"] = self._checked_label(item[self.label_key], path)
        if not facts["failure"]:
            facts["probabilities"] = self._checked_probabilities(item[self.pred_key], path)
        return facts

    def _checked_label(self, label: Any, path: Path) -> int:
        if int(label) != label or not 0 <= label < len(self.class_names):
            raise ValueError(f"{path}: label is {label}, expected 0 to {len(self.class_names) - 1}.")
        return int(label)

    def _checked_probabilities(self, pred: Any, path: Path) -> list[float]:
        values = np.asarray(pred.detach().cpu().float())
        if values.shape != (len(self.class_names),):
            raise ValueError(
                f"{path}: {self.pred_key} has shape {values.shape} for {len(self.class_names)} classes, "
                f"expected ({len(self.class_names)},)."
            )
        if not ((values >= 0).all() and abs(values.sum() - 1) < 0.01):  # not true of NaN either
            raise ValueError(f"{path}: {self.pred_key} is {values.tolist()}, expected probabilities that sum up to 1.")
        return [float(f"{value:.9g}") for value in values]

    def write(self, engine: Engine) -> None:
        """Write the files, and say how many images were used."""
        keys = {key for item in self.items for key in item}
        rows = [self._row(item, keys) for item in self.items]
        if "group" in keys:
            for row, patient in zip(rows, number_patients([item.get("group") for item in self.items]), strict=True):
                row["patient"] = patient
        name_weights(rows, engine)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        write_csv_atomically(self.output_dir / "per_image.csv", rows)
        self._write_json(rows)
        write_summary(self.output_dir, summarize_classes(rows, self.class_names))
        if self.says_counts or any(row["failure"] for row in rows):
            say_failures(rows, engine)

    def _row(self, item: dict[str, Any], keys: set[str]) -> dict[str, Any]:
        """Make an item's row of the table; ``keys`` are those that any item has."""
        name, label, probabilities = self._names[item["path"]], item.get("label"), item["probabilities"]
        best = int(np.argmax(probabilities)) if probabilities else None
        row: dict[str, Any] = {"image": name}
        if "label" in keys:
            row["label"] = "" if label is None else self.class_names[label]
        row["prediction"] = "" if best is None else self.class_names[best]
        for k, class_name in enumerate(self.class_names):
            row[f"probability_{class_name}"] = probabilities[k] if probabilities else ""
        if "label" in keys:
            row["correct"] = "" if best is None or label is None else int(best == label)
        # Without the folders, which are no more the table's business here than in its first column.
        row["failure"] = item["failure"].replace(str(item["path"]), name)
        row["warning"] = item["warning"]
        if "source" in keys:
            row["source"] = item.get("source", "")
        return row

    def _write_json(self, rows: list[dict[str, Any]]) -> None:
        predictions = [
            {
                "image": row["image"],
                "prediction": row["prediction"],
                "probabilities": {name: row[f"probability_{name}"] for name in self.class_names if not row["failure"]},
                "failure": row["failure"],
                "warning": row["warning"],
            }
            for row in rows
        ]
        write_atomically(self.output_dir / "predictions.json", json.dumps(predictions, indent=4) + "\n")
