"""Label maps of several classes, overlays and one table of per-image values, written while an evaluator runs."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import ImageReader
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from PIL import Image

from ...transforms.readers.loading import FAILURE
from ...transforms.readers.slices import is_volume
from ..metrics.class_overlap import count_pairs, summarize_overlap
from .captions import slice_positions, with_legend, with_text
from .claim import claim_folder, claim_run
from .colors import class_colors
from .files import (
    check_replaceable,
    distinct_names,
    distinct_stems,
    input_file,
    input_files,
    replacing,
    write_atomically,
    write_csv_atomically,
)
from .growing_table import GrowingTable
from .per_image import name_weights, number_patients, say_failures, weights_of
from .sample_grid import tile
from .summary import write_summary

# Rows towards posterior, columns towards the patient's left, slices towards the head.
PICTURE = axcodes2ornt("PLS")
HEAD = 2  # the axis of the patient from the feet to the head
MOST_SLICES = 12
NAME = "slices labelled by a network"


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
    colors = class_colors(int(classes.max(initial=0)))
    for number in np.unique(classes[classes > 0]):
        region = classes == number
        picture[region] = (1 - opacity) * picture[region] + opacity * np.array(colors[number - 1])
    return picture.astype(np.uint8)


class LabelMapWriter:
    """Write each image's label map and overlay and its row of ``per_image.csv``, which the end completes.

    Files: ``label_maps/<name>.png`` (the number of the class) or, of a CT volume, ``.nii.gz`` with the axes and the
    affine of that volume; ``overlays/<name>.png`` (of a volume up to twelve of its slices, with their places and a
    legend; where there is a label, its overlay on the left and the prediction's on the right) and ``per_image.csv``:
    image, height, width and slices, for each class its share of the image (``share_<class>``) and, where there is a
    label, the pixels in both (``both_<k>``) and in either (``either_<k>``) and, where the items have ``group``, the
    number of the patient; the weights with what they are for. Where there are labels, ``metrics.json`` has the scores
    of all images together, see :mod:`.summary`.

    Args:
        output_dir: folder for all of it.
        class_names: of the classes, the background first.
        reader: reads an image again for its overlay where the network saw it in another size, 0 to 255.
        source: a datalist; the label maps then become the training split of ``datalist.json``, which takes its window
            of Hounsfield units over and names the network as the labeller. None writes no list.

    An image whose item has a ``failure``, why it could not be read, has a row with that alone, and no files.

    Raises:
        ValueError: more than 256 classes; the folder has the list or the files of another run, or the images
            themselves; while running, once the table is written, none of the images could be read.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        class_names: Sequence[str],
        reader: ImageReader,
        source: str | os.PathLike | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.class_names = list(class_names)
        if len(self.class_names) > 256:  # a PNG holds no more
            raise ValueError(f"class_names has {len(self.class_names)}, a label map holds 256 with the background.")
        names = self.class_names[1:]
        self.legend = list(zip(names, class_colors(len(names)), strict=True))
        self.reader = reader
        self.source = source

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write_batch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write_table)

    def start(self, engine: Engine) -> None:
        """Begin a new table."""
        self.rows: list[dict[str, Any]] = []
        self.groups: list[Any] = []
        self.items: list[dict[str, str]] = []
        if self.source is not None:
            check_replaceable(self.output_dir / "datalist.json", NAME)
        files = input_files(engine)
        self._names, self._stems = distinct_names(files), distinct_stems(files)
        suffixes = {path: ".nii.gz" if is_volume(path) else ".png" for path in files}
        maps = [f"{self._stems[path]}{suffix}" for path, suffix in suffixes.items()]
        claim_run(self.output_dir, engine)
        self.table = GrowingTable(self.output_dir / "per_image.csv")
        claim_folder(self.output_dir / "label_maps", maps)
        claim_folder(self.output_dir / "overlays", [f"{stem}.png" for stem in self._stems.values()])

    def write_batch(self, engine: Engine) -> None:
        """Write label maps and overlays of the batch just done."""
        batch: Any = engine.state.batch  # lists of items: MONAI evaluators decollate
        output: Any = engine.state.output
        for entries, results in zip(batch, output, strict=True):
            self._write_one({**entries, **results})
            self.table.add(self.rows[-1] | weights_of(engine))

    def _write_one(self, item: dict[str, Any]) -> None:
        path = input_file(item)
        self.groups.append(item.get("group"))
        if item.get(FAILURE):
            reason = item[FAILURE].replace(str(path), self._names[path])  # folders are no business of a table
            self.rows.append({"image": self._names[path], FAILURE: reason})
            return
        pred, label = item["pred"], item.get("label")
        classes = torch.as_tensor(pred)[0].cpu().numpy().astype(np.uint8)
        affine = np.asarray(getattr(pred, "affine", np.eye(4)), dtype=np.float64)
        volume, grey = as_pictures(classes, affine), as_pictures(self._grey(item, path, classes.shape, affine), affine)
        overlays = [color_classes(*pair) for pair in zip(grey, volume, strict=True)]
        n, height, width = volume.shape
        row: dict[str, Any] = {"image": self._names[path], "height": height, "width": width, "slices": n}
        row |= {f"share_{c}": round(float((classes == k).mean()), 6) for k, c in enumerate(self.class_names)}
        if label is not None:  # MONAI sets None where there is none
            truth = torch.as_tensor(label)
            counts = count_pairs(torch.as_tensor(pred).to(truth.device), truth, len(self.class_names))
            both = np.diagonal(counts)
            row |= {f"both_{k}": int(count) for k, count in enumerate(both)}
            row |= {f"either_{k}": int(x) for k, x in enumerate(counts.sum(axis=0) + counts.sum(axis=1) - both)}
            truth_pictures = as_pictures(truth[0].cpu().numpy().astype(np.uint8), affine)
            pairs = zip(grey, truth_pictures, overlays, strict=True)
            overlays = [np.hstack([color_classes(image, own), overlay]) for image, own, overlay in pairs]
        places = np.unique(np.linspace(0, n - 1, min(n, MOST_SLICES)).round().astype(int))
        pictures = [with_square_pixels(overlays[k], affine) for k in places]
        if is_volume(path):
            axis = int(np.flatnonzero(io_orientation(affine)[:, 0] == HEAD)[0])
            positions = slice_positions(affine, classes.shape, axis)
            pictures = [with_text(picture, positions[k]) for picture, k in zip(pictures, places, strict=True)]
        sheet = tile(np.stack(pictures), min(len(places), 4))
        self._save(with_legend(sheet, self.legend) if is_volume(path) else sheet, "overlays", path)
        if is_volume(path):
            # The writer looks at the suffix, which what is not yet whole does not have.
            content = nibabel.Nifti1Image(classes, affine).to_bytes()
            with replacing(self.output_dir / "label_maps" / f"{self._stems[path]}.nii.gz") as partial:
                partial.write_bytes(gzip.compress(content, mtime=0))
        else:
            self._save(volume[0], "label_maps", path)
            image = Path(os.path.relpath(path, self.output_dir)).as_posix()
            self.items.append({"image": image, "label": f"label_maps/{self._stems[path]}.png"})
        self.rows.append(row | ({FAILURE: ""} if FAILURE in item else {}))

    def _grey(self, item: dict[str, Any], path: Path, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
        """Grey values uint8 (x, y, z) of the image, in the shape and the axes of the prediction."""
        seen = torch.as_tensor(item["image"])[0].float().cpu()
        if seen.shape == shape and np.allclose(getattr(item["image"], "affine", affine), affine):
            return ((seen + 1) * 127.5).clamp(0, 255).round().numpy().astype(np.uint8)
        return self.reader.get_data(self.reader.read(path))[0].round().astype(np.uint8)

    def _save(self, pixels: np.ndarray, folder: str, path: Path) -> None:
        with replacing(self.output_dir / folder / f"{self._stems[path]}.png") as partial:
            Image.fromarray(pixels).save(partial, format="PNG")

    def write_table(self, engine: Engine) -> None:
        """Write the table of all images."""
        if any(group is not None for group in self.groups):
            for row, patient in zip(self.rows, number_patients(self.groups), strict=True):
                row["patient"] = patient
        name_weights(self.rows, engine)
        columns = list(dict.fromkeys(key for row in sorted(self.rows, key=len, reverse=True) for key in row))
        write_csv_atomically(self.output_dir / "per_image.csv", self.rows, columns=columns)
        if "both_0" in columns:
            metrics = summarize_overlap([row for row in self.rows if "both_0" in row], self.class_names)
            write_summary(self.output_dir, metrics, name="metrics.json")
        if self.source is not None:
            self._write_list(Path(self.source))
        say_failures(self.rows, engine)

    def _write_list(self, source: Path) -> None:
        window = json.loads(source.read_text(encoding="utf-8")).get("window_hu")
        content = {
            "name": NAME,
            "labels": {str(k): name for k, name in enumerate(self.class_names)},
            "labeller": "network",
            **({} if window is None else {"window_hu": window}),
            "tensorImageSize": "2D",
            "training": self.items,
        }
        write_atomically(self.output_dir / "datalist.json", json.dumps(content, indent=1) + "\n")


def as_pictures(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Turn a volume (x, y, z) of any axes into pictures (slice, row, column) as a radiologist looks at them.

    Args:
        values: the volume.
        affine: (4, 4), from its voxels to millimetres towards right, anterior and superior.
    """
    turned = apply_orientation(values, ornt_transform(io_orientation(affine), PICTURE))
    return turned.transpose(2, 0, 1)


def with_square_pixels(picture: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Resize a picture uint8 (H, W, 3) of :func:`as_pictures` so that pixels are square; its longer side stays.

    Args:
        picture: of a slice.
        affine: of its volume.
    """
    axes = io_orientation(affine)[:, 0]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    height_mm, width_mm = (float(spacing[axes == axis][0]) for axis in (1, 0))
    height, width = picture.shape[:2]
    pixel_mm = max(width * width_mm, height * height_mm) / max(width, height)
    size = (max(1, round(width * width_mm / pixel_mm)), max(1, round(height * height_mm / pixel_mm)))
    return picture if size == (width, height) else np.asarray(Image.fromarray(picture).resize(size))
