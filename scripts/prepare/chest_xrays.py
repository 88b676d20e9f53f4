"""Chest X-rays: the COVID-19 transfer study's data sets, out of two public collections in their official layouts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pandas as pd

from clinbundles.transforms.readers.folder import is_image

from .classes import (
    Arrangement,
    ClassSet,
    LabelledImage,
    check_balance,
    count_balance,
    leaks,
    split_classes,
    undersample,
)

CLASSES = ("normal", "bacterial", "covid19")
PRETRAINING_CLASSES = ("normal", "bacterial", "viral")
KERMANY = "Kermany et al."
_FRONTAL_VIEWS = {"PA", "AP", "AP SUPINE", "AP ERECT"}
_BACTERIA = {
    "bacterial", "chlamydophila", "e.coli", "klebsiella", "legionella", "mycoplasma bacterial pneumonia", "nocardia",
    "staphylococcus", "mrsa", "streptococcus",
}  # fmt: skip


def covid_xray(
    root: Path, *, balance: Literal["none", "smallest"] | Any = "smallest", paper_protocol: bool = False
) -> ClassSet:
    """Both data sets of the COVID-19 transfer study, in one datalist.

    The splits training, validation and test are Dataset_1 (normal, bacterial, covid19), 70/10/20 of each class. The
    splits pretraining and pretraining_validation are Dataset_0 (normal, bacterial, viral; 87.5/12.5), without the
    patients of Dataset_1's validation and test. The split same_source has the X-rays of the COVID-19 collection that
    show no COVID-19 and no patient of the others: whoever tells the collections apart instead of the diseases fails on
    them.

    Args:
        root: folder with chest_xray/ and covid-chestxray-dataset/ in it or one folder below.
        balance: "smallest" (of each class as many images as the rarest has), "none", or the number of normal, bacterial
            and covid19 images, such as 544,500,456.
        paper_protocol: split image by image, and pretrain on all images, as the paper did; what leaks is counted.
    """
    check_balance(balance, CLASSES)
    children, adults = kermany(root), cohen(root)
    arrange = partial(
        arrange_covid, cohen_files={item.image for item in adults}, balance=balance, paper_protocol=paper_protocol
    )
    return ClassSet([*children, *adults], arrange=arrange)


def arrange_covid(
    images: Sequence[LabelledImage], *, seed: int, cohen_files: set[Path], balance: Any, paper_protocol: bool
) -> Arrangement:
    """Draw and split both data sets of the study, and count what leaks from one split to another.

    Args:
        images: those that can be read.
        seed: of the choice and of the split.
        cohen_files: files of the collection of Cohen et al.
        balance: see :func:`covid_xray`.
        paper_protocol: see :func:`covid_xray`.
    """
    from_kermany = [item for item in images if item.image not in cohen_files]
    from_cohen = [item for item in images if item.image in cohen_files]
    candidates = [item for item in from_kermany if item.class_name in CLASSES]
    candidates += [item for item in from_cohen if item.class_name == "covid19"]
    dataset_1 = undersample(candidates, count_balance(balance, candidates, CLASSES), seed=seed)
    splits = split_classes(dataset_1, seed=seed, by_group=not paper_protocol)
    held_out = {item.group for name in ("validation", "test") for item in splits[name]}
    dataset_0 = [item for item in from_kermany if paper_protocol or item.group not in held_out]
    pretraining = split_classes(dataset_0, seed=seed, by_group=not paper_protocol, test=False)
    others = {item.group for item in [*candidates, *dataset_0]}
    counts = {
        "training_to_test": leaks(splits["training"], splits["test"]),
        "pretraining_to_test": leaks(pretraining["training"], splits["test"]),
    }
    facts = {
        "name": "COVID-19 transfer, paper protocol" if paper_protocol else "COVID-19 transfer",
        "description": "Frontal chest X-rays: children of one hospital, normal, bacterial or viral pneumonia (Kermany "
        "et al., 2018), and patients with COVID-19 of many sources (Cohen et al., 2020)",
        "licence": "CC BY 4.0 (Kermany et al.); image by image in metadata.csv, for many unknown (Cohen et al.)",
        "modality": {"0": "X-ray"},
        "labels": dict(enumerate(CLASSES)),
        "pretraining_labels": dict(enumerate(PRETRAINING_CLASSES)),
        "split": "image by image" if paper_protocol else "by patient",
        "leaks": counts,
    }
    lists: dict[str, tuple[Sequence[LabelledImage], Sequence[str]]]
    lists = {name: (members, CLASSES) for name, members in splits.items()}
    lists["pretraining"] = (pretraining["training"], PRETRAINING_CLASSES)
    lists["pretraining_validation"] = (pretraining["validation"], PRETRAINING_CLASSES)
    lists["same_source"] = ([item for item in from_cohen if item.group not in others], CLASSES)
    notes = [
        f"{pair.replace('_to_', ' -> ')}: {count['seen_images']} of {count['test_images']} test images seen, "
        f"{count['images_of_seen_patients']} of patients seen"
        for pair, count in counts.items()
    ]
    unused = "not drawn by --balance" if paper_protocol else "not drawn by --balance, or of a patient held out"
    return Arrangement(facts, lists, notes=notes, unused=unused)


def find_folder(root: Path, name: str, *, holds: str) -> Path:
    """Find the folder with ``holds`` in it: ``root`` itself, or the one called ``name`` at most two folders below.

    Raises:
        FileNotFoundError: there is none.
    """
    for folder in (root, root / name, *sorted(root.glob(f"*/{name}"))):
        if any(folder.glob(holds)):
            return folder
    raise FileNotFoundError(f"{root}: no folder {name} here or one folder below, with {holds} in it.")


def kermany(root: Path) -> list[LabelledImage]:
    """Read the images of chest_xray/, ``root`` itself or below it, as normal, bacterial or viral.

    Children of one to five years (Kermany, Zhang and Goldbaum, *Labeled optical coherence tomography (OCT) and chest
    X-ray images for classification*, 2018). ``train`` and ``test`` are read; the 16 images of ``val`` are not, as the
    study's 5840 images show. A patient is the personNNN of a file's name, wherever it lies, or the IM-NNNN of a normal
    one; in the newer release, whose names are as ``BACTERIA-7422-0001``, the number in the middle.

    A file whose name tells neither patient nor kind of pneumonia has a fault.

    Raises:
        FileNotFoundError: no such folder.
    """
    folder = find_folder(root, "chest_xray", holds="train/NORMAL")
    files = [
        path
        for part in ("train", "test")
        for kind in ("NORMAL", "PNEUMONIA")
        for path in sorted((folder / part / kind).glob("*"))
    ]
    images = [_kermany_image(path) for path in files if is_image(path)]
    unread = sum(is_image(path) for path in folder.glob("val/*/*"))
    others = len(files) - len(images)
    print(f"{KERMANY}: {len(images)} images; left out: {unread} of val/, {others} files that are no image")
    return images


def _kermany_image(path: Path) -> LabelledImage:
    normal = path.parent.name == "NORMAL"
    older = r"((?:NORMAL2-)?IM-\d+)-" if normal else r"(person\d+)_(bacteria|virus)_"
    newer = r"(?P<kind>NORMAL)-(?P<number>\d+)-" if normal else r"(?P<kind>BACTERIA|VIRUS)-(?P<number>\d+)-"
    kinds = {"bacteria": "bacterial", "virus": "viral"}
    if match := re.match(older, path.name):
        return LabelledImage(path, "normal" if normal else kinds[match[2]], f"kermany-{match[1]}", KERMANY)
    if match := re.match(newer, path.name):
        class_name = "normal" if normal else kinds[match["kind"].lower()]
        return LabelledImage(path, class_name, f"kermany-{match['number']}", KERMANY)
    expected = "IM-NNNN-…, NORMAL2-IM-NNNN-… or NORMAL-NNNN-…" if normal else "personNNN_bacteria_… or BACTERIA-NNNN-…"
    fault = f"{path}: expected a name like {expected}."
    return LabelledImage(path, "normal", path.name, KERMANY, fault=fault)


def cohen(root: Path) -> list[LabelledImage]:
    """Read the frontal X-rays of covid-chestxray-dataset/, ``root`` or below it, as covid19, bacterial or normal.

    Cohen et al., *COVID-19 image data collection: prospective predictions are the future*, 2020. Lateral views, CT
    slices, files that are not there, unlabelled images, other diseases and rows without a patient are left out, and a
    line tells how many.
    ``source`` is the host of the page that the image comes from.

    Raises:
        FileNotFoundError: no metadata.csv.
        ValueError: it lacks a column, or tells no patient.
    """
    folder = find_folder(root, "covid-chestxray-dataset", holds="metadata.csv")
    table = pd.read_csv(folder / "metadata.csv", dtype=str, keep_default_na=False)
    for column in ("patientid", "finding", "view", "modality", "filename", "url"):
        if column not in table:
            raise ValueError(f"{folder / 'metadata.csv'}: has no column {column}.")
    if len(table) and not table["patientid"].str.strip().any():
        raise ValueError(
            f"{folder / 'metadata.csv'}: column patientid is empty in all {len(table)} rows, so no patient can be kept "
            "in one split: take a release of the collection that has it."
        )
    images: dict[str, LabelledImage] = {}
    reasons: Counter[str] = Counter()
    for row in table.sort_values("filename").to_dict("records"):
        name, class_name = row["filename"], class_of_finding(row["finding"])
        path = folder / "images" / name
        if reason := _reason_against(row, class_name, path=path, listed=name in images):
            reasons[reason] += 1
        else:
            images[name] = LabelledImage(path, str(class_name), f"cohen-{row['patientid'].strip()}", _host(row["url"]))
    left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    print(f"Cohen et al.: {len(images)} of {len(table)} rows; left out: {left_out or 'none'}")
    return list(images.values())


def _reason_against(row: dict[Any, str], class_name: str | None, *, path: Path, listed: bool) -> str:
    """Why a row of the metadata is left out, or nothing."""
    if row["modality"] != "X-ray" or row["view"].upper() not in _FRONTAL_VIEWS:
        return "no frontal X-ray"
    if class_name is None:
        return "other or no finding"
    if not path.is_file():
        return "without file"
    if not row["patientid"].strip():
        return "without patientid"
    return "listed twice" if listed else ""


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.removeprefix("www.") or "unknown"
    except ValueError:  # half an address
        return "unknown"


def class_of_finding(finding: str) -> str | None:
    """Class of a finding, as both releases of the metadata write it ("COVID-19, ARDS", "Pneumonia/Viral/COVID-19").

    It is None for what is no class of the study.
    """
    words = {word.strip().lower() for word in re.split("[,/]", finding)}
    if "covid-19" in words:
        return "covid19"
    if words & _BACTERIA:
        return "bacterial"
    return "normal" if words == {"no finding"} else None
