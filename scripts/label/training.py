"""A training of a served bundle on what was labelled: its datalist, its options, and where its weights go."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clinbundles.engines.outputs.files import write_atomically
from clinbundles.engines.outputs.instances import measure_cells
from clinbundles.engines.weights_card import card_path
from clinbundles.scripts.bundle import (
    PATH_ENDINGS,
    load_network,
    open_configs,
    options_of_config,
    read_configs,
    run_configs,
)
from clinbundles.scripts.flags import code_in
from clinbundles.transforms.gaze.readers import with_fixations
from clinbundles.transforms.readers.coco import encode_mask, mask_box, read_coco

from .models import SHIPPED, TRAINED, ServedBundle

POINTS = "points.json"  # beside the images, as clinbundles annotate writes it
GAZE = "gaze.*"  # a recording beside the images
LEAST_IMAGES = 2
START = "$load_weights(@network, {path})"


def train(bundle: ServedBundle, pairs: Sequence[tuple[str, str]], studies: Path, request: Mapping[str, Any]) -> Path:
    """Train a bundle on labelled images, and return the weights, which stand beside the shipped ones from then on.

    A training that is stopped or fails leaves the weights as they are.

    Args:
        bundle: it trains by its train.json, from the newest weights unless the request has ``pretrained`` false.
        pairs: paths of images and of their labels: masks, label maps, or for classes JSON of a ``label``.
        studies: folder of the images. For cells, its points.json, if there is one, is taken for labels; for networks
            that learn by gaze, a recording gaze.csv (or of another format).
        request: values of train.json by name, and ``val_split``, the share of images to validate by.

    Raises:
        FileNotFoundError, ValueError: a label cannot be read, or there are too few; what the training raises.
    """
    folder = bundle.folder / "training"
    folder.mkdir(exist_ok=True)
    options = options_of_request(bundle, request)
    items = list_items(bundle, pairs, studies, folder)
    n_validation = round(float(request.get("val_split", 0.2)) * len(items))
    content = datalist_of(bundle, items, n_validation=min(max(1, n_validation), len(items) - 1))
    write_atomically(folder / "datalist.json", json.dumps(content, indent=1))
    if "arm" in read_configs(bundle.folder, ["train"]) and not all("fixations" in i for i in content["training"]):
        options["arm"] = "original"
    if request.get("pretrained", True):
        options |= start_from(bundle)
    ckpt_dir = folder / "run"
    shutil.rmtree(ckpt_dir, ignore_errors=True)
    places = {
        "dataset_dir": studies,
        "datalist": folder / "datalist.json",
        "ckpt_dir": ckpt_dir,
        "output_dir": ckpt_dir,
    }
    run_configs(bundle.folder, ["train"], **options, **{name: str(path) for name, path in places.items()})
    return publish(ckpt_dir / SHIPPED, bundle)


def options_of_request(bundle: ServedBundle, request: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a request sets of the values of train.json: plain ones at its top, and no paths.

    Raises:
        ValueError: a value would run code, or make weights that this bundle's inference does not take.
    """
    known = options_of_config(read_configs(bundle.folder, ["train"]))
    chosen = {}
    for name, value in request.items():
        if name not in known or not known[name].listed or name.endswith(PATH_ENDINGS) or name == "device":
            continue
        if (code := code_in(value)) is not None:
            raise ValueError(f"{name}: {code!r} would run code; give a plain value.")
        chosen[name] = value
    served = open_configs(bundle.folder, ["inference"])
    compared = served["weights_loader"]["options"]  # with the card that the training writes
    for name in chosen.keys() & compared.keys():
        if json.loads(json.dumps(served.get_parsed_content(name))) != chosen[name]:
            raise ValueError(
                f"{name} is {chosen[name]!r}, and this server applies {bundle.folder.name} with "
                f"{served.get_parsed_content(name)!r}: weights of another {name} would not fit."
            )
    return chosen


def list_items(
    bundle: ServedBundle, pairs: Sequence[tuple[str, str]], studies: Path, folder: Path
) -> list[dict[str, Any]]:
    """List labelled images as items of a datalist with whole paths, always in one order that is none of theirs.

    Raises:
        FileNotFoundError, ValueError: as :func:`train`.
    """
    items: list[dict[str, Any]] = [{"image": image, "label": label} for image, label in pairs]
    if bundle.kind == "instances":
        items = _with_points(studies) if (studies / POINTS).is_file() else _with_cells(items, folder)
    elif bundle.kind == "classes":
        items = [item | {"label": read_class(Path(item["label"]), bundle.class_names)} for item in items]
    if len(items) < LEAST_IMAGES:
        raise ValueError(f"{len(items)} images are labelled: a training needs {LEAST_IMAGES} or more.")
    recordings = sorted(studies.glob(GAZE)) if "arm" in read_configs(bundle.folder, ["train"]) else []
    if recordings:
        items = with_fixations(items, gaze_file=recordings[0])
    return sorted(items, key=lambda item: hashlib.sha256(Path(item["image"]).name.encode()).hexdigest())


def read_class(path: Path, class_names: Sequence[str]) -> int:
    """Read the class of an image from JSON of its ``label``, else of a server's ``prediction`` that was kept.

    Raises:
        ValueError: it is no such file, or names no class.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        name = content.get("label")
        if name is None:
            name = max(content["prediction"], key=lambda entry: entry["score"])["label"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{path}: is no label of a class, such as {{"label": "{class_names[0]}"}}.') from error
    if name not in class_names:
        raise ValueError(f"{path}: {name!r} is no class: there are {', '.join(class_names)}.")
    return list(class_names).index(name)


def datalist_of(bundle: ServedBundle, items: Sequence[Mapping[str, Any]], *, n_validation: int) -> dict[str, Any]:
    """Give a datalist of items, the first of which are to validate."""
    first = 0 if bundle.kind == "classes" else 1
    names = bundle.class_names[first:] if bundle.kind == "label map" else bundle.class_names
    labels = {str(number): name for number, name in enumerate(names, start=first)}
    return {
        "name": "labelled in MONAI Label",
        "labels": ({"0": "background"} if first else {}) | labels,
        "tensorImageSize": "2D",
        "training": list(items[n_validation:]),
        "validation": list(items[:n_validation]),
    }


def start_from(bundle: ServedBundle) -> dict[str, Any]:
    """Give the values of train.json by which a training starts from the newest weights."""
    config = read_configs(bundle.folder, ["train"])
    path = ascii(str(bundle.weights())).replace("#", r"\x23").replace("@", r"\x40")
    steps = [step for step in config["run"] if step != "$@start_weights"]
    imports = [*config["imports"], "$from clinbundles.nets.weights import load_weights"]
    return {"imports": imports, "run": [*steps[:-1], START.format(path=path), steps[-1]]}


def publish(weights: Path, bundle: ServedBundle) -> Path:
    """Move weights, with their card, beside those that the bundle came with, and return where they are.

    Raises:
        ValueError: the bundle's inference does not take them, as where the training had other channels.
    """
    load_network(open_configs(bundle.folder, ["inference"], ckpt_path=str(weights)))
    target = bundle.folder / "models" / TRAINED
    if card_path(weights).is_file():
        os.replace(card_path(weights), card_path(target))
    os.replace(weights, target)
    return target


def _with_points(studies: Path) -> list[dict[str, Any]]:
    coco = read_coco(studies / POINTS)
    images = [
        (number, studies / entry["file_name"]) for number, entry in coco.images.items() if coco.annotations[number]
    ]
    items = [{"image": str(path), "label": str(coco.path), "image_id": number} for number, path in images]
    if missing := [item["image"] for item in items if not Path(item["image"]).is_file()]:
        raise FileNotFoundError(f"{coco.path}: lists {missing[0]}, which is not there.")
    return items


def _with_cells(items: Sequence[Mapping[str, str]], folder: Path) -> list[dict[str, Any]]:
    """Write the label maps of cells as one COCO list, and point the items to it."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    listed = [{"image": item["image"], "label": str(folder / "instances.json")} for item in items]
    for image_id, item in enumerate(items, start=1):
        with Image.open(item["label"]) as picture:
            labels = np.asarray(picture).astype(np.int64)
        if labels.ndim != 2:
            raise ValueError(f"{item['label']}: is no label map of cells, which has a number a pixel.")
        name = Path(item["image"]).name
        images.append({"id": image_id, "file_name": name, "height": labels.shape[0], "width": labels.shape[1]})
        numbers = np.unique(labels[labels > 0]).tolist()
        for cell in measure_cells(labels, dict.fromkeys(numbers, 1.0), None):
            mask = encode_mask(labels == cell["cell"])
            entry = {"id": len(annotations) + 1, "image_id": image_id, "category_id": 1, "iscrowd": 0}
            annotations.append(entry | {"bbox": mask_box(mask), "area": cell["area_px"], "segmentation": mask})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}
    write_atomically(folder / "instances.json", json.dumps(content))
    return [item | {"image_id": number} for number, item in enumerate(listed, start=1)]
