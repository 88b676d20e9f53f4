"""Label maps of several classes, overlays and one table of per-image values, written while an evaluator runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from PIL import Image

from ..metrics.class_overlap import count_pairs
from .files import distinct_names, distinct_stems, input_file, input_files, replacing, write_csv_atomically
from .per_image import number_patients

# Colours that stay apart for the colour-blind (Okabe and Ito), for class 1 and on.
COLORS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66))


def color_classes(image: np.ndarray, classes: np.ndarray, *, opacity: float = 0.45) -> np.ndarray:
    """Lay the colours of classes on a grey image.

    Args:
        image: uint8 (H, W).
        classes: (H, W); 0, the background, stays as it is.
        opacity: of the colours.

    Returns:
        uint8 (H, W, 3).
    """
    picture = np.repeat(image[..., None].astype(np.float32), 3, axis=-1)
    for number in np.unique(classes[classes > 0]):
        region = classes == number
        picture[region] = (1 - opacity) * picture[region] + opacity * np.array(COLORS[(number - 1) % len(COLORS)])
    return picture.astype(np.uint8)


class LabelMapWriter:
    """Write each image's label map and overlay as PNG and, at the end, ``per_image.csv``.

    Files: ``label_maps/<name>.png`` (the number of the class), ``overlays/<name>.png`` (where there is a label, its
    overlay on the left and the prediction's on the right) and ``per_image.csv``: image, height, width, for each class
    its share of the image and, where there is a label, the pixels in both (``both_<k>``) and in either (``either_<k>``)
    and, where the items have ``group``, the number of the patient.

    Args:
        output_dir: folder for all of it.
        class_names: of the classes, the background first.
    """

    def __init__(self, output_dir: str | os.PathLike, class_names: Sequence[str]) -> None:
        self.output_dir = Path(output_dir)
        self.class_names = list(class_names)

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write_batch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write_table)

    def start(self, engine: Engine) -> None:
        """Begin a new table."""
        self.rows: list[dict[str, Any]] = []
        self.groups: list[Any] = []
        files = input_files(engine)
        self._names, self._stems = distinct_names(files), distinct_stems(files)
        for name in ("label_maps", "overlays"):
            (self.output_dir / name).mkdir(parents=True, exist_ok=True)

    def write_batch(self, engine: Engine) -> None:
        """Write label maps and overlays of the batch just done."""
        batch: Any = engine.state.batch  # lists of items: MONAI evaluators decollate
        output: Any = engine.state.output
        for entries, results in zip(batch, output, strict=True):
            self._write_one({**entries, **results})

    def _write_one(self, item: dict[str, Any]) -> None:
        path = input_file(item)
        pred, label = torch.as_tensor(item["pred"]), item.get("label")
        classes = pred[0, ..., 0].cpu().numpy().astype(np.uint8)
        image = torch.as_tensor(item["image"])[0, ..., 0].float().cpu()
        grey = ((image + 1) * 127.5).clamp(0, 255).round().numpy().astype(np.uint8)
        overlay = color_classes(grey, classes)
        row: dict[str, Any] = {"image": self._names[path], "height": classes.shape[0], "width": classes.shape[1]}
        row |= {f"share_{k}": round(float((classes == k).mean()), 6) for k in range(len(self.class_names))}
        if label is not None:  # MONAI sets None where there is none
            truth = torch.as_tensor(label)
            counts = count_pairs(pred.to(truth.device), truth, len(self.class_names))
            both = np.diagonal(counts)
            row |= {f"both_{k}": int(n) for k, n in enumerate(both)}
            row |= {f"either_{k}": int(n) for k, n in enumerate(counts.sum(axis=0) + counts.sum(axis=1) - both)}
            overlay = np.hstack([color_classes(grey, truth[0, ..., 0].cpu().numpy().astype(np.uint8)), overlay])
        self._save(classes, "label_maps", path)
        self._save(overlay, "overlays", path)
        self.groups.append(item.get("group"))
        self.rows.append(row)

    def _save(self, pixels: np.ndarray, folder: str, path: Path) -> None:
        with replacing(self.output_dir / folder / f"{self._stems[path]}.png") as partial:
            Image.fromarray(pixels).save(partial, format="PNG")

    def write_table(self, engine: Engine) -> None:
        """Write the table of all images."""
        if any(group is not None for group in self.groups):
            for row, patient in zip(self.rows, number_patients(self.groups), strict=True):
                row["patient"] = patient
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        write_csv_atomically(self.output_dir / "per_image.csv", self.rows, columns=columns)
