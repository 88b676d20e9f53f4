"""Cell instances that were found in the images of a datalist: an evaluation's folder, or label maps of any program."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from clinbundles.engines.metrics.detection import Detections, Matches, pair_with_masks
from clinbundles.engines.metrics.instance_sets import ScoredImage
from clinbundles.engines.metrics.instances import as_detections
from clinbundles.engines.outputs.files import distinct_names, distinct_stems
from clinbundles.scripts.prepare.pairs import read_label_map
from clinbundles.transforms.readers.coco import CocoList, Instances, as_run_lengths, instances_of, read_coco
from clinbundles.transforms.readers.folder import image_stem, image_suffix

MAP_SUFFIXES = (".tif", ".tiff", ".png", ".npy")
ENDINGS = re.compile(r"_(cp_masks|masks|labels?|seg)$")


def read_predictions(
    folder: Path, items: Sequence[Mapping[str, Any]]
) -> tuple[list[ScoredImage], dict[str, str], bool]:
    """Read what a folder holds for the images of a split.

    Args:
        folder: of an evaluation, with detections.json and label_maps/, or of label maps named after the images:
            ``a.tif`` or ``a_cp_masks.png`` for ``a.png``, which may lie beside the images. Cells of a label map alone
            have a score of 1 each.
        items: of the split, with whole paths.

    Returns:
        the images that can be scored, why each other one is left out, and whether the detections have scores.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of predictions.")
    listed = read_coco(folder / "detections.json") if (folder / "detections.json").is_file() else None
    files = [Path(item["image"]) for item in items]
    names, stems = distinct_names(files), distinct_stems(files)
    maps = _maps_of(folder / "label_maps" if listed is not None else folder)
    scored: list[ScoredImage] = []
    left_out: dict[str, str] = {}
    for item, file in zip(items, files, strict=True):
        try:
            found = _of_image(maps.get(stems[file].casefold(), []), file)
            if not found and listed is None:
                raise ValueError(f"has no label map {stems[file]}.tif, .png or .npy")
            scored.append(_read_one(item, names[file], found, listed))
        except KeyError as error:
            left_out[names[file]] = f"its entry in the datalist or in detections.json lacks {error}"
        except (ValueError, OSError) as error:
            left_out[names[file]] = str(error)
    return scored, left_out, listed is not None


def _maps_of(folder: Path) -> dict[str, list[Path]]:
    """List label maps by the stem of their image, in small letters."""
    maps: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if image_suffix(path) in MAP_SUFFIXES and not path.name.startswith("."):
            maps.setdefault(ENDINGS.sub("", image_stem(path)).casefold(), []).append(path)
    return maps


def _of_image(files: Sequence[Path], image: Path) -> list[Path]:
    """Leave out the image itself and, beside label maps, what Cellpose keeps for its own window."""
    maps = [path for path in files if path.resolve() != image.resolve()]
    cellpose = [path for path in maps if image_stem(path).endswith("_cp_masks")]
    return cellpose or [path for path in maps if not path.name.endswith("_seg.npy")] or maps


def _read_one(item: Mapping[str, Any], name: str, found: Sequence[Path], listed: CocoList | None) -> ScoredImage:
    truth = instances_of(item)
    if len(found) > 1:
        raise ValueError(f"has {len(found)} label maps: {', '.join(path.name for path in found)}")
    labels = _read_map(found[0], truth) if found else None
    if listed is None:
        assert labels is not None
        detections = as_detections(labels)
    else:
        detections = _listed(item, truth, listed)
    has_masks = labels is not None and all(mask is not None for mask in truth.masks)
    matches = _matches(labels, truth) if has_masks else None  # type: ignore[arg-type]
    return ScoredImage(name, item.get("group"), truth, detections, matches)


def _read_map(path: Path, truth: Instances) -> np.ndarray:
    values = _read_array(path)
    values = read_label_map(path) if values is None else _as_whole_numbers(values, path)
    if values.shape != (truth.height, truth.width):
        raise ValueError(
            f"{path.name} has {values.shape[1]}x{values.shape[0]} px, the image {truth.width}x{truth.height}"
        )
    if values.min(initial=0) < 0:
        raise ValueError(f"{path.name} has the number {values.min()}: background is 0 and cells count from 1")
    if set(np.unique(values).tolist()) == {0, 255} and len(truth.boxes) > 1:
        raise ValueError(f"{path.name} holds 0 and 255 alone: a mask of all cells and no label map, a number each")
    return values


def _read_array(path: Path) -> np.ndarray | None:
    """Read a file of numpy, or a TIFF file of floats or 64 bits, which Pillow does not read; None for any other."""
    if image_suffix(path) == ".npy":
        try:
            with path.open("rb") as file:
                return np.lib.format.read_array(file, allow_pickle=False)
        except ValueError as error:
            raise ValueError(f"{path.name}: not a readable file of numpy ({error})") from error
    if image_suffix(path) in (".tif", ".tiff"):
        with suppress(tifffile.TiffFileError), tifffile.TiffFile(path) as file:
            kind = file.pages[0].dtype
            if len(file.pages) == 1 and kind is not None and (kind.kind == "f" or kind.itemsize == 8):
                return file.asarray()
    return None


def _as_whole_numbers(values: np.ndarray, path: Path) -> np.ndarray:
    numbers = values.ndim == 2 and values.dtype.kind in "biuf"
    if not numbers or not (abs(values) < 2**53).all() or (values != np.rint(values)).any():
        raise ValueError(
            f"{path.name}: shape {values.shape} of {values.dtype}, a label map is one whole number a pixel"
        )
    return values.astype(np.int64)


def _listed(item: Mapping[str, Any], truth: Instances, listed: CocoList) -> Detections:
    entry = _entry_of(item, listed)
    if (entry["height"], entry["width"]) != (truth.height, truth.width):
        raise ValueError(
            f"{listed.path.name}: {entry['width']}x{entry['height']} px, the image {truth.width}x{truth.height}"
        )
    found = listed.annotations[entry["id"]]
    if any(len(annotation["bbox"]) != 4 for annotation in found):
        raise ValueError(f"{listed.path.name}: a box is not x, y, width, height")
    boxes = np.array([annotation["bbox"] for annotation in found], dtype=float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = np.array([annotation["score"] for annotation in found], dtype=float)
    if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
        raise ValueError(f"{listed.path.name}: a score or a box is no finite number")
    size = {"height": truth.height, "width": truth.width}
    masks = [as_run_lengths(annotation["segmentation"], **size) for annotation in found]
    return Detections(boxes, scores, masks)


def _entry_of(item: Mapping[str, Any], listed: CocoList) -> dict[str, Any]:
    """Find an image by its name: inference numbers what it finds in a folder, and a datalist otherwise."""
    file = Path(item["image"])
    names = {number: entry["file_name"] for number, entry in listed.images.items()}
    same = [number for number, name in names.items() if name.endswith(file.name) and _ends_with(file, Path(name))]
    if len(same) != 1 and item["image_id"] not in same:
        raise ValueError(f"{listed.path.name} lists {len(same) or 'no'} images of this name")
    return listed.images[same[0] if len(same) == 1 else item["image_id"]]


def _ends_with(file: Path, name: Path) -> bool:
    return file.parts[-len(name.parts) :] == name.parts


def _matches(labels: np.ndarray, truth: Instances) -> Matches:
    numbers, iou = pair_with_masks(labels, [mask for mask in truth.masks if mask is not None])
    matched = int((iou > 0).sum())
    return Matches(matched, len(numbers) - matched, len(truth.masks) - matched, float(iou.sum()))
