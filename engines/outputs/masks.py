"""Masks, overlays and one table of per-image values, written while an evaluator runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import ImageReader
from PIL import Image
from scipy import ndimage

from ...transforms.readers.loading import FAILURE
from .claim import claim_folder, claim_run
from .colors import OUTCOMES, PREDICTION, RGB
from .files import distinct_names, distinct_stems, input_file, input_files, replacing, write_csv_atomically
from .growing_table import GrowingTable
from .per_image import complete_rows, name_weights, say_failures, weights_of
from .summary import summarize_metrics, write_summary

MEASURES = ("height", "width", "segmented_share", "n_regions", "max_probability")


def draw_contour(image: np.ndarray, mask: np.ndarray, color: RGB) -> np.ndarray:
    """Draw the outline of a mask (h, w) on a copy of an RGB image uint8 (H, W, 3).

    A mask of another size is stretched to the image's. The line lies inside the mask, about 1/200 of the image wide.
    """
    width = max(1, round(min(image.shape[:2]) / 200))
    mask = stretched(mask, image.shape)
    outline = mask & ~ndimage.binary_erosion(mask, iterations=width, border_value=1)
    picture = image.copy()
    picture[outline] = color
    return picture


def color_outcomes(image: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Colour the hits, misses and false alarms of a mask on an RGB image uint8 (H, W, 3), which becomes grey.

    Masks (h, w) of another size are stretched to the image's.
    """
    mask, truth = stretched(mask, image.shape), stretched(truth, image.shape)
    picture = image.mean(-1, keepdims=True).repeat(3, -1) * 0.8
    for outcome, region in (("hit", mask & truth), ("miss", truth & ~mask), ("false alarm", mask & ~truth)):
        picture[region] = 0.25 * picture[region] + 0.75 * np.array(OUTCOMES[outcome])
    return picture.astype(np.uint8)


def stretched(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Stretch a mask (h, w) to the (H, W) of ``shape`` by nearest neighbours, as bool."""
    return np.asarray(Image.fromarray(mask.astype(bool)).resize((shape[1], shape[0]), Image.Resampling.NEAREST)) > 0


class PredictionWriter:
    """Write each image's mask and overlay as PNG and its row of ``per_image.csv``, which the end completes.

    Files: ``masks/<name>.png`` (0 and 255), ``overlays/<name>.png`` (where there is a label, hits green, misses orange
    and false alarms blue, see OUTCOMES; else the prediction's outline) and ``per_image.csv``: image, height, width,
    share of the image segmented, number of connected regions, highest probability, where the items have ``failure`` why
    the file could not be read, then one column for every per-image metric of the evaluator, where the items have
    ``group`` the number of the patient and where they have ``source`` that (a hospital, say), and the weights with what
    they are for. Where there are metrics, ``metrics.json`` has their means with 95 % intervals, also by source.

    An image that could not be read has a row alone, and no files. The name is the file's stem; of images with the same
    stem each is named by more of its path, in the table as :func:`.files.distinct_names` does.

    A handler and not a transform, so that the postprocessing stays usable where an application saves in its own way.

    Args:
        output_dir: folder for all of it.
        reader: reads the image file again for the overlay, (H, W, 3).
        pred_key: key of the binary prediction (1, H, W).
        probability_key: key of the probabilities (1, H, W).

    Raises:
        ValueError: while running, before the first image, the folder has another run's files or the images themselves;
            once the table is written, none of the images could be read.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        reader: ImageReader,
        *,
        pred_key: str = "pred",
        probability_key: str = "probability",
    ) -> None:
        self.output_dir = Path(output_dir)
        self.reader = reader
        self.pred_key = pred_key
        self.probability_key = probability_key
        self.rows: list[dict[str, Any]] = []
        self.groups: list[Any] = []
        self.sources: list[Any] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write_batch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write_table)

    def start(self, engine: Engine) -> None:
        """Begin a new table."""
        self.rows, self.groups, self.sources = [], [], []
        files = input_files(engine)
        self._names, self._stems = distinct_names(files), distinct_stems(files)
        claim_run(self.output_dir, engine)
        self.table = GrowingTable(self.output_dir / "per_image.csv")
        for name in ("masks", "overlays"):
            claim_folder(self.output_dir / name, [f"{stem}.png" for stem in self._stems.values()])

    def write_batch(self, engine: Engine) -> None:
        """Write masks and overlays of the batch just done."""
        batch: Any = engine.state.batch  # lists of items: MONAI evaluators decollate
        output: Any = engine.state.output
        for entries, results in zip(batch, output, strict=True):
            self._write_one({**entries, **results})
            self.table.add(self.rows[-1] | weights_of(engine))

    def _write_one(self, item: dict[str, Any]) -> None:
        path = input_file(item)
        self.groups.append(item.get("group"))
        self.sources.append(item.get("source"))
        if item.get(FAILURE):
            reason = item[FAILURE].replace(str(path), self._names[path])  # folders are no business of a table
            self.rows.append({"image": self._names[path], **dict.fromkeys(MEASURES, ""), FAILURE: reason})
            return
        mask = _plane(item[self.pred_key]) > 0.5
        self._save(mask.astype(np.uint8) * 255, "masks", path)
        image, label = np.asarray(self.reader.read(path)), item.get("label")
        if label is None:  # MONAI sets None where there is none
            overlay = draw_contour(image, mask, PREDICTION)
        else:
            overlay = color_outcomes(image, mask, _plane(label) > 0.5)
        self._save(overlay, "overlays", path)
        values = (
            *mask.shape,
            round(float(mask.mean()), 6),
            int(ndimage.label(mask)[1]),
            round(float(item[self.probability_key].max()), 6),
        )
        row = {"image": self._names[path], **dict(zip(MEASURES, values, strict=True))}
        self.rows.append(row | ({FAILURE: ""} if FAILURE in item else {}))

    def _save(self, pixels: np.ndarray, folder: str, path: Path) -> None:
        with replacing(self.output_dir / folder / f"{self._stems[path]}.png") as partial:
            Image.fromarray(pixels).save(partial, format="PNG")

    def write_table(self, engine: Engine) -> None:
        """Write ``per_image.csv``, metrics included, and ``metrics.json`` where there are any."""
        metrics = getattr(engine.state, "metric_details", {})
        complete_rows(self.rows, metrics, self.groups, self.sources)
        name_weights(self.rows, engine)
        write_csv_atomically(self.output_dir / "per_image.csv", self.rows)
        if metrics:
            patients = [row.get("patient", "") for row in self.rows]
            write_summary(self.output_dir, summarize_metrics(metrics, patients, self.sources), name="metrics.json")
        say_failures(self.rows, engine)


def _plane(image: torch.Tensor) -> np.ndarray:
    """Give the only channel of an image (1, H, W) as an array (H, W)."""
    return np.asarray(image.detach().cpu())[0]
