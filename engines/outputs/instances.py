"""Label maps, outlines, overlays and tables of cells, written while an evaluator runs."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from ignite.engine import Engine, Events
from monai.data import ImageReader
from PIL import Image
from scipy import ndimage
from skimage.segmentation import find_boundaries
from torch import nn

from ...transforms.readers.coco import mask_area
from ...transforms.readers.loading import FAILURE
from ...transforms.readers.pixel_size import pixel_size_um
from ..metrics.instance_sets import summarize_instances
from ..metrics.instances import InstanceScores, detections_of
from .claim import claim_folder, claim_run
from .colors import CELLS
from .files import (
    distinct_names,
    distinct_stems,
    input_file,
    input_files,
    replacing,
    write_atomically,
    write_csv_atomically,
)
from .growing_table import GrowingTable
from .outlines import polygons
from .per_image import complete_rows, name_weights, say_failures, weights_of
from .summary import write_summary

FOLDERS = {"label_maps": ".tif", "overlays": ".png", "geojson": ".geojson"}
PIXEL_COLUMNS = ("pixel_height_um", "pixel_width_um")
UM_COLUMNS = ("area_um2", "centroid_x_um", "centroid_y_um")
CELL_COLUMNS = ("image", "cell", "area_px", "centroid_x_px", "centroid_y_px", "score", *UM_COLUMNS)


class InstanceWriter:
    """Write each image's label map, outlines, overlay and row of a table and, at the end, the tables whole.

    Files, by the stem of the image or more of its path where another image has the same:

    - ``label_maps/<name>.tif``: 0 background, then a number for each cell; uint16, or uint32 where that is too small.
    - ``geojson/<name>.geojson``: outlines in px along the edges of the pixels, as QuPath imports them.
    - ``overlays/<name>.png``: the outlines on the image.
    - ``per_cell.csv``: number in the label map, area, centroid and score of each cell, also in micrometers where the
      file tells the size of its pixels. The middle of the first pixel is at 0.5.
    - ``per_image.csv``: size, number of cells, share of the image that they cover, size of a pixel, each per-image
      metric of the evaluator, where the items have ``group`` the number of the patient, and the weights with what they
      are for. An image that could not be read (``failure``) has the reason, and no other file.
    - ``scores.json``: the metrics of the evaluator, if it has any, and ``metrics.json`` the same with intervals, see
      :mod:`.summary`.
    - ``detections.json``: a COCO list of everything that was found, with scores. Unlike the label map it has the
      detections of low scores too, and those that others hide: this is what average precision is computed from.

    Args:
        output_dir: folder for all of it.
        reader: reads the image file again for the overlay, (H, W, 3).
        network: has ``detections``, see :func:`..metrics.instances.detections_of`.
        scores: what scores the same evaluation; None writes no ``metrics.json``.
        pred_key: key of the label map (1, H, W).

    Raises:
        ValueError: while running, before the first image, the folder has another run's files or the images themselves;
            once the tables are written, none of the images could be read.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        reader: ImageReader,
        network: nn.Module,
        *,
        scores: InstanceScores | None = None,
        pred_key: str = "pred",
    ) -> None:
        self.output_dir = Path(output_dir)
        self.reader = reader
        self.network = network
        self.scores = scores
        self.pred_key = pred_key

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write_batch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write_tables)

    def start(self, engine: Engine) -> None:
        """Begin new tables."""
        self.cells: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.groups: list[Any] = []
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        files = input_files(engine)
        self._names, self._stems = distinct_names(files), distinct_stems(files)
        claim_run(self.output_dir, engine)
        self.table = GrowingTable(self.output_dir / "per_image.csv")
        for name, suffix in FOLDERS.items():
            claim_folder(self.output_dir / name, [f"{stem}{suffix}" for stem in self._stems.values()])

    def write_batch(self, engine: Engine) -> None:
        """Write the files of the images of the batch just done."""
        batch: Any = engine.state.batch  # lists of items: MONAI evaluators decollate
        output: Any = engine.state.output
        found = getattr(self.network, "detections", [None] * len(batch))
        for entries, results, detection in zip(batch, output, found, strict=True):
            self._write_one({**entries, **results}, detection)
            self.table.add(self.rows[-1] | weights_of(engine))

    def _write_one(self, item: dict[str, Any], detection: Any) -> None:
        path = input_file(item)
        self.groups.append(item.get("group"))
        if item.get(FAILURE):
            blank = dict.fromkeys(("height", "width", "cells", "covered_share", *PIXEL_COLUMNS), "")
            reason = item[FAILURE].replace(str(path), self._names[path])  # folders are no business of a table
            self.rows.append({"image": self._names[path], **blank, FAILURE: reason})
            return
        labels = np.asarray(item[self.pred_key].detach().cpu())[0]
        image = np.asarray(self.reader.read(path))
        check_map(labels, image, path)
        size = pixel_size_um(path)
        scores, detections = detections_of(labels, detection)
        cells = list(measure_cells(labels, scores, size))
        for cell in cells:
            self.cells.append({"image": self._names[path], **cell})
        self._save_map(labels, path)
        self._save(as_geojson(labels, cells, self._names[path]), "geojson", f"{self._stems[path]}.geojson")
        with replacing(self.output_dir / "overlays" / f"{self._stems[path]}.png") as partial:
            Image.fromarray(draw_cells(image, labels)).save(partial, format="PNG")
        self._list(item, path, labels.shape, detections)
        row = {"image": self._names[path], "height": labels.shape[0], "width": labels.shape[1], "cells": len(cells)}
        row["covered_share"] = round(float((labels > 0).mean()), 6)
        row |= dict(zip(PIXEL_COLUMNS, size or ("", ""), strict=True))
        self.rows.append(row | ({FAILURE: ""} if FAILURE in item else {}))

    def _save_map(self, labels: np.ndarray, path: Path) -> None:
        kind = np.uint16 if labels.max(initial=0) < 2**16 else np.uint32
        with replacing(self.output_dir / "label_maps" / f"{self._stems[path]}.tif") as partial:
            tifffile.imwrite(partial, labels.astype(kind), compression="zlib", photometric="minisblack")

    def _save(self, content: Any, folder: str, name: str) -> None:
        write_atomically(self.output_dir / folder / name, json.dumps(content))

    def _list(self, item: Mapping[str, Any], path: Path, shape: tuple[int, ...], detections: Any) -> None:
        image_id = item.get("image_id", len(self.images) + 1)
        image_id = image_id.item() if hasattr(image_id, "item") else image_id
        self.images.append({"id": image_id, "file_name": self._names[path], "height": shape[0], "width": shape[1]})
        for box, score, mask in zip(detections.boxes, detections.scores, detections.masks, strict=True):
            x1, y1, x2, y2 = (round(float(number), 3) for number in box)
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "bbox": [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)],
                    "score": float(score),
                    "area": mask_area(mask),
                    "segmentation": mask,
                }
            )

    def write_tables(self, engine: Engine) -> None:
        """Write the tables, metrics included, and the list of detections."""
        complete_rows(self.rows, getattr(engine.state, "metric_details", {}), self.groups)
        name_weights(self.rows, engine)
        scores = {name: value for name, value in engine.state.metrics.items() if isinstance(value, int | float)}
        if scores:
            finite = {name: value if math.isfinite(value) else None for name, value in scores.items()}
            write_atomically(self.output_dir / "scores.json", json.dumps(finite, indent=4) + "\n")
        if self.scores is not None:
            patients = [row.get("patient", "") for row in self.rows]
            threshold = getattr(self.network, "label_score_threshold", 0.0)
            metrics = summarize_instances(scores, self.scores.images, patients, threshold=threshold)
            write_summary(self.output_dir, metrics, name="metrics.json")
        write_csv_atomically(self.output_dir / "per_image.csv", self.rows)
        write_csv_atomically(self.output_dir / "per_cell.csv", self.cells, columns=CELL_COLUMNS)
        content = {"images": self.images, "annotations": self.annotations, "categories": [{"id": 1, "name": "cell"}]}
        write_atomically(self.output_dir / "detections.json", json.dumps(content))
        say_failures(self.rows, engine)


def check_map(labels: np.ndarray, image: np.ndarray, path: Path) -> None:
    """Refuse a label map (H, W) that does not fit its image (H, W, 3), or does not number its cells.

    Raises:
        ValueError: sizes that differ, or a map of other than whole numbers.
    """
    if labels.shape != image.shape[:2]:
        sizes = [f"{width}x{height}" for height, width in (image.shape[:2], labels.shape)]
        raise ValueError(f"{path}: the image has {sizes[0]} px and its label map {sizes[1]}: they have to be the same.")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{path}: its label map is of type {labels.dtype}, expected whole numbers.")


def measure_cells(
    labels: np.ndarray, scores: Mapping[int, float], size: tuple[float, float] | None
) -> Iterator[dict[str, Any]]:
    """Measure the cells of a label map.

    Args:
        labels: whole numbers (H, W), 0 for background.
        scores: of each number.
        size: height and width of a pixel in micrometers, if known.

    Returns:
        a row of ``per_cell.csv`` for each, without the image.
    """
    height, width = size or (None, None)
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if place is None:
            continue
        rows, columns = np.nonzero(labels[place] == number)
        y, x = (float(at.mean()) + side.start + 0.5 for at, side in zip((rows, columns), place, strict=True))
        cell: dict[str, Any] = {"cell": number, "area_px": len(rows)}
        cell |= {"centroid_x_px": round(x, 3), "centroid_y_px": round(y, 3), "score": round(scores[number], 6)}
        if height is None or width is None:
            yield cell | dict.fromkeys(UM_COLUMNS, "")
        else:
            cell |= {"area_um2": round(len(rows) * height * width, 6)}
            yield cell | {"centroid_x_um": round(x * width, 6), "centroid_y_um": round(y * height, 6)}


def as_geojson(labels: np.ndarray, cells: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Draw the cells of a label map as GeoJSON polygons with their measurements.

    The polygons have the area of the pixels, without that of holes; a cell in several parts becomes a multipolygon.

    Args:
        labels: whole numbers (H, W), 0 for background.
        cells: as :func:`measure_cells` gives them, of the same map.
        name: of the image, from which the ids are made.
    """
    places = ndimage.find_objects(labels)
    features = []
    for cell in cells:
        place = places[cell["cell"] - 1]
        parts = polygons(labels[place] == cell["cell"], top=place[0].start, left=place[1].start)
        geometry: dict[str, Any] = {"type": "MultiPolygon", "coordinates": parts}
        if len(parts) == 1:
            geometry = {"type": "Polygon", "coordinates": parts[0]}
        names = {"area_px": "Area px^2", "area_um2": "Area µm^2", "score": "Score"}
        measurements = {names[key]: cell[key] for key in names if cell[key] != ""}
        properties = {"objectType": "detection", "name": str(cell["cell"]), "measurements": measurements}
        known_by = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name}/{cell['cell']}"))
        features.append({"type": "Feature", "id": known_by, "geometry": geometry, "properties": properties})
    return {"type": "FeatureCollection", "features": features}


def draw_cells(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Draw the outlines of the cells of a label map (H, W) on a copy of an RGB image uint8 (H, W, 3).

    Cells that touch have different colours, as long as there are enough.
    """
    picture = image.copy()
    outline = find_boundaries(labels, mode="inner")
    picture[outline] = np.array(CELLS)[number_colors(labels)[labels[outline]]]
    return picture


def number_colors(labels: np.ndarray) -> np.ndarray:
    """Choose one of CELLS, the colours, for each number of a label map (H, W), other ones for cells that touch."""
    neighbours: dict[int, set[int]] = {}
    for one, other in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        touching = (one != other) & (one > 0) & (other > 0)
        for first, second in np.unique(np.stack([one[touching], other[touching]], axis=1), axis=0).tolist():
            neighbours.setdefault(max(first, second), set()).add(min(first, second))
    colors = np.arange(labels.max(initial=0) + 1) % len(CELLS)
    for number in sorted(neighbours):  # those with a lower number have their colour by now
        used = set(colors[list(neighbours[number])].tolist())
        ahead = (colors[number] + np.arange(len(CELLS))) % len(CELLS)
        colors[number] = next((color for color in ahead if color not in used), colors[number])
    return colors
