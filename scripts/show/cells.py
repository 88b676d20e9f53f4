"""Pictures of cell instances: what supervises them, what was found, and what it costs to annotate them.

clinbundles show points bundles/pace_cell_segmentation/samples/datalist.json --output points.png
clinbundles show cells runs/pace_cell_segmentation/evaluation --datalist datalist.json --output cells.png
clinbundles show annotation_time --output annotation_time.png
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from monai.data import load_decathlon_datalist

from clinbundles.engines.metrics.detection import average_precision
from clinbundles.engines.metrics.instance_sets import ScoredImage
from clinbundles.engines.outputs.colors import CELLS
from clinbundles.engines.outputs.files import distinct_names
from clinbundles.scripts.flags import as_parts
from clinbundles.scripts.score.predictions import read_predictions
from clinbundles.transforms.readers.coco import Instances, decode_mask, instances_of, points_of
from clinbundles.transforms.readers.images import RGBImageReader

from .drawing import save

COUNTS = (0, 1, 2, 4, 6, 8, 10)
CELL, BACKGROUND = "#56b4e9", "#e69f00"


def show_points(
    datalist: str,
    *,
    dataset_dir: str | None = None,
    split: str = "training",
    item: int = 0,
    n_points: int = 4,
    crop: Any = None,
    output: str = "points.png",
) -> None:
    """Draw the cells of one image by their masks, and beside that by a box and a few points each.

    Args:
        datalist: JSON datalist with instances.
        dataset_dir: folder of the data set; that of the datalist if not given.
        split: training, validation or test.
        item: number of the image in the split, from 0.
        n_points: points of each cell to draw.
        crop: left,top,width,height in px; the whole image if not given.
        output: picture to write.
    """
    chosen = _item(_items(datalist, dataset_dir, split), item)
    truth, points = instances_of(chosen), points_of(chosen)
    pixels = np.asarray(RGBImageReader().read(chosen["image"]))
    figure, axes = _panels(2, _window(crop, pixels.shape))
    _draw_masks(axes[0], pixels, truth.masks)
    axes[0].set_title("masks")
    axes[1].imshow(pixels)
    for (x1, y1, x2, y2), (places, labels) in zip(truth.boxes, points, strict=True):
        axes[1].add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, color="white", linewidth=0.8))
        for (x, y), label in zip(places[:n_points], labels[:n_points], strict=True):
            axes[1].plot(x, y, "o" if label else "X", ms=5, mfc=CELL if label else BACKGROUND, mec="black", mew=0.5)
    axes[1].set_title(f"a box and {n_points} point{'s'[: n_points != 1]} each")
    handles = [
        Line2D([], [], marker=marker, ls="", mfc=color, mec="black", label=label)
        for marker, color, label in (("o", CELL, "cell"), ("X", BACKGROUND, "background"))
    ]
    axes[1].legend(handles=handles, loc="lower right", fontsize=8)
    save(figure, output)


def show_cells(
    evaluations: str,
    *,
    datalist: str,
    dataset_dir: str | None = None,
    split: str = "test",
    item: Any = 0,
    names: Any = None,
    crop: Any = None,
    output: str = "cells.png",
) -> None:
    """Draw what one image or several truly hold beside what evaluations found, with the AP50 of each.

    Args:
        evaluations: folder of an evaluation, or of label maps of another program; several with commas between them.
        datalist: JSON datalist with instances.
        dataset_dir: folder of the data set; that of the datalist if not given.
        split: training, validation or test.
        item: number of the image in the split, from 0; several with commas between them become rows.
        names: what each evaluation is called; its folder's name if not given.
        crop: left,top,width,height in px; the whole image if not given.
        output: picture to write.
    """
    folders = [Path(folder) for folder in as_parts(evaluations)]
    titles = as_parts(names) if names is not None else [folder.name for folder in folders]
    if len(titles) != len(folders):
        raise ValueError(f"names: {len(titles)} names for {len(folders)} evaluations.")
    items = _items(datalist, dataset_dir, split)
    rows = [_item(items, int(number)) for number in as_parts(item)]
    found = [_found_in(folder, items, rows) for folder in folders]
    figure, axes = plt.subplots(
        len(rows), len(folders) + 1, figsize=(4 * (len(folders) + 1), 4.3 * len(rows)), squeeze=False
    )
    for line, chosen in zip(axes, rows, strict=True):
        pixels = np.asarray(RGBImageReader().read(chosen["image"]))
        truth = instances_of(chosen)
        _draw_masks(line[0], pixels, truth.masks)
        line[0].set_title(f"{Path(chosen['image']).stem[:16]}: {len(truth.boxes)} cells")
        for axis, of_folder, title in zip(line[1:], found, titles, strict=True):
            _draw_found(axis, pixels, truth, of_folder[chosen["image"]], title)
        for axis in line:
            _set_window(axis, _window(crop, pixels.shape))
    figure.tight_layout()
    save(figure, output)


def show_annotation_time(
    *,
    seconds_per_box: float = 7.0,
    seconds_per_point: float = 0.9,
    seconds_per_mask: float = 46.0,
    output: str = "annotation_time.png",
) -> None:
    """Draw the time that it takes to annotate a cell by a box and a number of points, and by a mask.

    The paper's text calls one point 5.2 times faster than a mask, which is its value for two points; one is 5.8 times
    faster by its own numbers: those that stand here, of Papadopoulos et al., 2017, and Cheng et al., 2022.

    Args:
        seconds_per_box: for the box of a cell.
        seconds_per_point: for a point, as clinbundles annotate tells of your own.
        seconds_per_mask: for the outline of a cell.
        output: picture to write.
    """
    for name, value in (("box", seconds_per_box), ("point", seconds_per_point), ("mask", seconds_per_mask)):
        if not value > 0:
            raise ValueError(f"seconds_per_{name} is {value}, expected a number above 0.")
    seconds = [seconds_per_box + count * seconds_per_point for count in COUNTS] + [seconds_per_mask]
    labels = ["box", *(f"{count} point{'s'[: count != 1]}" for count in COUNTS[1:]), "mask"]
    figure, axis = plt.subplots(figsize=(8, 4))
    bars = axis.bar(labels, seconds, color=[CELL] * len(COUNTS) + [BACKGROUND])
    factors = [f"{value:.1f} s\n{seconds_per_mask / value:.2f} x" for value in seconds[:-1]]
    axis.bar_label(bars, [*factors, f"{seconds_per_mask:.1f} s"], fontsize=8)
    axis.set(ylabel="seconds a cell", title="time to annotate a cell, and how many times faster than a mask")
    axis.margins(y=0.15)
    figure.tight_layout()
    save(figure, output)


def _items(datalist: str, dataset_dir: str | None, split: str) -> list[dict[str, Any]]:
    return load_decathlon_datalist(datalist, True, split, str(dataset_dir or Path(datalist).parent))


def _item(items: Sequence[dict[str, Any]], number: int) -> dict[str, Any]:
    if not 0 <= number < len(items):
        raise ValueError(f"item is {number}, expected 0 to {len(items) - 1}.")
    return items[number]


def _found_in(folder: Path, items: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Read what a folder holds for some of the items, by the path of the image; the names depend on all of them."""
    images, left_out, _ = read_predictions(folder, items)
    by_name = {image.name: image for image in images}
    names = distinct_names(Path(item["image"]) for item in items)
    wanted = {item["image"]: names[Path(item["image"])] for item in rows}
    for name in wanted.values():
        if name in left_out:
            raise ValueError(f"{folder}: {name}: {left_out[name]}.")
    return {path: by_name[name] for path, name in wanted.items()}


def _draw_found(axis: Axes, pixels: np.ndarray, truth: Instances, found: ScoredImage, title: str) -> None:
    has_masks = all(mask is not None for mask in truth.masks)
    score = average_precision([truth], [found.detections], of="segm" if has_masks else "bbox")["AP50"]
    shown = [mask for mask, score in zip(found.detections.masks, found.detections.scores, strict=True) if score >= 0.5]
    _draw_masks(axis, pixels, shown)
    axis.set_title(f"{title}: AP50 {score:.3f}")


def _draw_masks(axis: Axes, pixels: np.ndarray, masks: Sequence[dict[str, Any] | None]) -> None:
    """Draw the outlines of masks, whose colours come in turn."""
    axis.imshow(pixels)
    for number, mask in enumerate(masks):
        if mask is not None:
            color = np.array(CELLS[number % len(CELLS)]) / 255
            axis.contour(np.pad(decode_mask(mask), 1)[1:-1, 1:-1], levels=[0.5], colors=[color], linewidths=1)


def _panels(count: int, window: tuple[float, float, float, float]) -> tuple[Any, Sequence[Axes]]:
    _, _, width, height = window
    figure, axes = plt.subplots(1, count, figsize=(5 * count, 5 * height / width + 0.5), layout="constrained")
    for axis in axes:
        _set_window(axis, window)
    return figure, axes


def _window(crop: Any, shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    numbers = [float(part) for part in as_parts(crop)] if crop is not None else [0, 0, shape[1], shape[0]]
    if len(numbers) != 4 or min(numbers[2:]) <= 0:
        raise ValueError(f"crop is {crop!r}, expected left,top,width,height in px.")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _set_window(axis: Axes, window: tuple[float, float, float, float]) -> None:
    left, top, width, height = window
    axis.set_xlim(left - 0.5, left + width - 0.5)
    axis.set_ylim(top + height - 0.5, top - 0.5)
    axis.axis("off")
