"""The images that audited weights were trained on, by their card and the datalist of the training."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clinbundles.engines.weights_card import read_card

NOT_RECOGNISED = "copies that were made smaller or saved anew are not recognised"


class TrainingImages:
    """The images of the training splits of a datalist: counts how many of other images are among them.

    Files are compared by their bytes, whatever their names; a training image whose file is not at hand by its path in
    the list.

    Args:
        datalist: JSON datalist.
        root: folder that its paths start from.
        trained: names of the splits that were trained on.
    """

    def __init__(self, datalist: Path, root: Path, *, trained: Sequence[str] = ("training",)) -> None:
        content = json.loads(datalist.read_text(encoding="utf-8"))
        items = {split: content.get(split) or [] for split in (*trained, "validation")}
        self.trained = _Files(root, [item["image"] for split in trained for item in items[split]])
        self.validation = _Files(root, [item["image"] for item in items["validation"]])
        self.groups = {item["group"] for split in trained for item in items[split] if item.get("group") is not None}
        self.missing = len(self.trained.missing)

    def count(self, items: Iterable[Mapping[str, Any]], root: Path) -> dict[str, int]:
        """Count the images that were trained on, those that only chose the checkpoint, and others of their patients.

        Args:
            items: each with image (whole path) and, where known, group.
            root: folder that the paths of their datalist start from.

        Returns:
            images (all of them), trained_on, validated_on (and not trained on), same_patient (and neither).
        """
        counts = {"images": 0, "trained_on": 0, "validated_on": 0, "same_patient": 0}
        for item in items:
            path, counts["images"] = Path(item["image"]), counts["images"] + 1
            if self.trained.has(path, root):
                counts["trained_on"] += 1
            elif self.validation.has(path, root):
                counts["validated_on"] += 1
            elif item.get("group") in self.groups:
                counts["same_patient"] += 1
        return counts


class _Files:
    """Files by size and, once one of that size is asked for, by SHA-256; those that are not there by name."""

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        self.missing: set[str] = set()
        self.by_size: dict[int, list[Path]] = {}
        self.digests: dict[int, set[str]] = {}
        for name in names:
            path = root / name
            if path.is_file():
                self.by_size.setdefault(path.stat().st_size, []).append(path)
            else:
                self.missing.add(os.path.normpath(name))

    def has(self, path: Path, root: Path) -> bool:
        size = path.stat().st_size if path.is_file() else -1
        if size in self.by_size:
            if size not in self.digests:
                self.digests[size] = {_sha256(each) for each in self.by_size[size]}
            if _sha256(path) in self.digests[size]:
                return True
        return os.path.relpath(path, root) in self.missing


def count_seen(
    weights: Path,
    *,
    items: Mapping[str, Sequence[Mapping[str, Any]]],
    datalist: Path,
    root: Path,
    outside: Mapping[str, Sequence[Mapping[str, Any]]],
    trained_on: Path | None = None,
    trained_on_dir: Path | None = None,
) -> dict[str, Any]:
    """Count the images of an audit that its weights were trained on, and those that its own trainings see.

    Args:
        weights: the audited file; its card names the datalist of its training by SHA-256.
        items: of the splits of ``datalist``, with whole paths.
        datalist, root: of the audit.
        outside: further images by the name of their set.
        trained_on, trained_on_dir: datalist of the training and folder that its paths start from, where they are not
            those of the audit.

    Returns:
        known (whether it is), basis (by what, or why not), before (names of the weights that they went on from, but for
        those whose card names the same datalist), audited (by split or set what :meth:`TrainingImages.count` gives;
        None where it is not known), list (test images that the training split of ``datalist`` has too).

    Raises:
        ValueError: ``trained_on`` is not the datalist that the card names; all test images were trained on.
    """
    own = trained_on or datalist
    known, basis = _basis(weights, own, given=trained_on is not None)
    audited = None
    if known:
        images = TrainingImages(own, trained_on_dir or root, trained=_splits(weights))
        audited = {split: images.count(items[split], root) for split in ("test", "same_source") if split in items}
        audited |= {f"outside {name}": images.count(each, root) for name, each in outside.items()}
        if images.missing:
            basis += f"; {images.missing} of its training images are not at hand and compared by their names alone"
        if audited["test"]["trained_on"] == audited["test"]["images"]:
            raise ValueError(
                f"{datalist}: {weights} was trained on all {len(items['test'])} test images: nothing here would tell "
                "of new images. Give a datalist whose split test it has not seen."
            )
    return {
        "known": known,
        "basis": basis,
        "before": _before(weights, own),
        "audited": audited,
        "list": TrainingImages(datalist, root).count(items["test"], root),
    }


def say_seen(seen: Mapping[str, Any]) -> list[str]:
    """Say in sentences how many test images were trained on, of what :func:`count_seen` returned."""
    said, own = [], seen["list"]
    if not seen["known"]:
        said.append(
            f"Whether the audited weights were trained on test images cannot be known: {seen['basis']}. If they were, "
            "their values say nothing of new images."
        )
    else:
        for name, counts in seen["audited"].items():
            images = "test images" if name == "test" else f"images of {name}"
            if counts["trained_on"]:
                said.append(
                    f"The audited weights were trained on {counts['trained_on']} of the {counts['images']} {images}: "
                    "their values here are not those of new images."
                )
            elif name == "test":
                said.append(f"The audited weights were trained on none of the {counts['images']} test images.")
            if others := counts["validated_on"]:
                said.append(f"Of the {images} {others} chose their checkpoint.")
            if others := counts["same_patient"]:
                said.append(f"Of the {images} {others} are of patients that they were trained on.")
        said.append(f"This is known because {seen['basis']}; {NOT_RECOGNISED}.")
    if before := seen.get("before"):
        said.append(
            f"They went on from {' and '.join(before)}, which were trained on images that nothing here compares: these "
            "may be among the test images."
        )
    if own["trained_on"]:
        said.append(
            f"The datalist has {own['trained_on']} of its {own['images']} test images in training too: what was "
            "trained anew, and the baselines, have seen them."
        )
    return said


def mark_seen(seen: Mapping[str, Any], *, audited: bool) -> str:
    """Mark a row of a table whose model was trained on test images, or may have been; "" for one that was not.

    Args:
        seen: what :func:`count_seen` returned.
        audited: the row is of the audited weights, and not of what the audit trains itself.
    """
    if audited and not seen["known"]:
        return " (training images unknown)"
    counts = seen["audited"]["test"] if audited else seen["list"]
    return f" ({counts['trained_on']} of {counts['images']} trained on)" if counts["trained_on"] else ""


def _basis(weights: Path, datalist: Path, *, given: bool) -> tuple[bool, str]:
    """Tell whether weights were trained on a datalist, and by what that is known or why it is not."""
    card, digest = read_card(weights), _sha256(datalist)
    option, named = "--trained_on" if given else "--datalist", card.get("datalist_sha256")
    if named == digest:
        return True, f"the card of the weights names this {option} by its sha256"
    if named and given:
        raise ValueError(
            f"--trained_on {datalist}: has the sha256 {digest[:12]}, and the card of {weights} names {named[:12]}: "
            "give the datalist that these weights were trained on."
        )
    if named:
        return False, f"their card names a datalist of the sha256 {named[:12]}, which --trained_on would give"
    lack = "their card names no datalist" if card else "they have no card"
    return (True, f"--trained_on says so, and {lack}") if given else (False, f"{lack}, and --trained_on is not given")


def _before(weights: Path, datalist: Path) -> list[str]:
    """Name the weights that others went on from, but for those whose card names the datalist."""
    starts, digest = read_card(weights).get("initial_weights") or [], _sha256(datalist)
    return [
        " ".join([start["name"], *([f"(sha256 {start['sha256'][:12]})"] if "sha256" in start else [])])
        for start in starts
        if start.get("datalist_sha256") != digest
    ]


def _splits(weights: Path) -> list[str]:
    """Name the splits that weights were trained on, with that of the model which a transferred one starts from."""
    options = read_card(weights).get("options") or {}
    before = ["pretraining"] if options.get("stage", "transfer") == "transfer" else []
    return list(dict.fromkeys([options.get("training_split", "training"), *before]))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
