"""What can be told of an image's class without its pixels: from its shape, from where it comes from, from nothing."""

from __future__ import annotations

import gzip
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import nibabel
import numpy as np
import pandas as pd
import pydicom
from PIL import Image, UnidentifiedImageError
from sklearn.tree import DecisionTreeClassifier

from clinbundles.engines.metrics.class_report import write_class_report
from clinbundles.engines.outputs.files import write_atomically

BASELINES = {
    "aspect_ratio": "decision tree",
    "source": "commonest class of each source",
    "chance": "always the commonest class",
}


def aspect_ratio(path: Path) -> float:
    """Read an image's width over its height from the file's header: nothing is decoded.

    JPEG, PNG and what else Pillow knows (also gzip-compressed), NIfTI of one slice, DICOM.

    Raises:
        ValueError: the file says no size.
    """
    if path.name.lower().endswith((".nii", ".nii.gz")):
        width, height = nibabel.load(path).shape[:2]  # type: ignore[attr-defined]
        return width / height
    with path.open("rb") as start:
        compressed = start.read(2) == b"\x1f\x8b"
    try:
        opened: IO[bytes] = gzip.GzipFile(path) if compressed else path.open("rb")  # type: ignore[assignment]
        with opened as stream, Image.open(stream) as image:
            return image.width / image.height
    except UnidentifiedImageError:
        return _dicom_ratio(path)


def _dicom_ratio(path: Path) -> float:
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")  # pydicom's own may quote the value of a field
        try:
            tags = ["Rows", "Columns"]
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(tags))
            height, width = (int(dataset[name].value) for name in tags)
            return width / height
        except Exception as error:  # damage of any kind
            raise ValueError(f"{path}: its size is not to be had ({type(error).__name__}).") from None


def constant_probabilities(training_labels: Sequence[int], n_images: int, *, num_classes: int) -> np.ndarray:
    """Give each of N images the shares of the K classes among the training images, (N, K).

    The best that can be done without looking at anything, and so what chance is: always the commonest class.
    """
    return np.tile(_shares(training_labels, num_classes), (n_images, 1))


def aspect_ratio_probabilities(
    training_ratios: Sequence[float],
    training_labels: Sequence[int],
    ratios: Sequence[float],
    *,
    num_classes: int,
    seed: int = 0,
) -> np.ndarray:
    """Predict probabilities (N, K) of N images from their width over height alone, after that of the training images.

    A decision tree of at most eight leaves with five images or more each, so at most seven thresholds.
    """
    tree = DecisionTreeClassifier(max_depth=3, min_samples_leaf=5, random_state=seed)
    tree.fit(np.reshape(training_ratios, (-1, 1)), training_labels)
    found = np.zeros((len(ratios), num_classes))
    found[:, tree.classes_] = tree.predict_proba(np.reshape(ratios, (-1, 1)))
    return found


def source_probabilities(
    training_sources: Sequence[str], training_labels: Sequence[int], sources: Sequence[str], *, num_classes: int
) -> np.ndarray:
    """Predict probabilities (N, K) of N images from their sources alone, after those of the training images.

    They are the shares of the classes among the source's training images. A source that training has not gets the share
    of the training sources whose commonest class each one is: what is likely of a new source is what sources are like,
    and not what the largest of them is.
    """
    labels, known = np.asarray(training_labels), np.asarray(training_sources)
    shares = {str(source): _shares(labels[known == source], num_classes) for source in np.unique(known)}
    unseen = _shares([int(share.argmax()) for share in shares.values()], num_classes)
    return np.array([shares.get(source, unseen) for source in sources])


def baseline_table(
    items: Sequence[Mapping[str, Any]], probabilities: np.ndarray, class_names: Sequence[str]
) -> pd.DataFrame:
    """Lay out probabilities (N, K) as the table that a classifier's predictions on these items would have.

    The class of the highest probability is predicted, the first of equal ones. Patients are numbers in the order of
    their appearance; an item without a group is a patient of its own.

    Args:
        items: each with image, label (class index) and, where known, group and source.
        probabilities: of each class.
        class_names: by class index.
    """
    names = np.array(class_names)
    table = pd.DataFrame({"image": [Path(item["image"]).name for item in items]})
    table["label"] = names[[int(item["label"]) for item in items]]
    table["prediction"] = names[probabilities.argmax(1)]
    for name, column in zip(class_names, probabilities.T, strict=True):
        table[f"probability_{name}"] = column
    table["source"] = [item.get("source", "") for item in items]
    table["patient"] = pd.factorize(pd.Series([item.get("group", f"item {k}") for k, item in enumerate(items)]))[0]
    return table


def score_baselines(
    training: Sequence[Mapping[str, Any]],
    test: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    output_dir: str | os.PathLike,
    *,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Score each of BASELINES on the test split; by name, what :func:`write_class_report` says of it.

    Each has a folder in ``output_dir``; one whose metrics.json is there is not scored again. There is no "source" where
    an image has none.

    Args:
        training, test: items with image (whole path), label (class index) and, where known, source and group.
        class_names: by class index.
        output_dir: folder of their folders.
        seed: of the decision tree.
    """
    labels, num_classes = [int(item["label"]) for item in training], len(class_names)

    def predict(name: str) -> np.ndarray:
        if name == "chance":
            return constant_probabilities(labels, len(test), num_classes=num_classes)
        if name == "source":
            known, asked = ([item["source"] for item in items] for items in (training, test))
            return source_probabilities(known, labels, asked, num_classes=num_classes)
        known, asked = ([aspect_ratio(Path(item["image"])) for item in items] for items in (training, test))
        return aspect_ratio_probabilities(known, labels, asked, num_classes=num_classes, seed=seed)

    found = {}
    for name in BASELINES:
        if name == "source" and not all(item.get("source") for item in (*training, *test)):
            continue
        folder = Path(output_dir) / name
        if not (folder / "metrics.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            table = baseline_table(test, predict(name), class_names)
            write_atomically(folder / "per_image.csv", table.to_csv(index=False))
            write_class_report(folder, class_names)
        found[name] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return found


def _shares(labels: Sequence[int] | np.ndarray, num_classes: int) -> np.ndarray:
    return np.bincount(labels, minlength=num_classes) / len(labels)
