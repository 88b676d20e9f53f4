"""Plain folders of one's own: images with masks, or one folder a class."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from clinbundles.scripts.flags import parse_ids
from clinbundles.transforms.readers.folder import is_image

from .classes import Arrangement, ClassSet, LabelledImage, check_balance, count_balance, split_classes, undersample
from .datalist import check_sum, parse_ratios
from .pairs import DataSet, Record, pair_by_name, with_foreground
from .recordings import gaze_files

LEFT_OUT = "it may be left out, and every image then counts as a patient of its own."


def folder(
    root: Path,
    *,
    label: str,
    modality: str,
    images: str = "images",
    masks: str = "masks",
    mask_ending: str = "",
    foreground: Any = None,
    patient_pattern: str | None = None,
    join_duplicates: bool = True,
    gaze: str | None = None,
    **reading: Any,
) -> DataSet:
    r"""Plain folder: images/ and masks/ with the same names; an official split is train.txt and val.txt beside them.

    Args:
        root: the folder.
        label: what the masks mark, such as polyp.
        modality: how the images were taken, such as endoscopy.
        images: folder of the images in it, such as Original; . is the data set's own.
        masks: folder of the masks, likewise, such as "Ground Truth"; the same where they lie beside the images.
        mask_ending: what the name of a mask has more than its image's, such as _mask of x_mask.png beside x.jpg.
        foreground: ids that are foreground where the masks are label maps, such as 1,2 or 26-31.
        patient_pattern: regular expression that an image's name begins with, whose first group is the patient or the
            sequence, such as "(\d+)_"; without it every image counts as a patient of its own.
        join_duplicates: whether near-duplicates are kept in one split (False for images that are all alike).
        gaze: recorded gaze: a file, or a glob of files, one for each observer.
        reading: how to read them, see :func:`clinbundles.scripts.prepare.recordings.gaze_files`.
    """
    for flag, value in {"label": label, "modality": modality}.items():
        if not value.strip():
            raise ValueError(f"--{flag} is {value!r}: expected a word")
    ids = None if foreground is None else parse_ids(foreground)
    records = pairs_of_folders(root, images=images, masks=masks, mask_ending=mask_ending)
    if patient_pattern is not None:
        pattern = compile_pattern(patient_pattern)
        records = [replace(record, group=patient_of(record.path, pattern)) for record in records]
    else:
        print("every image counts as a patient of its own: --patient_pattern finds the patient in its name")
    return DataSet(
        root,
        name=root.resolve().name,
        description=f"Frames with {label} masks",
        licence="not stated",
        records=records if ids is None else with_foreground(records, foreground=ids),
        label=label,
        modality=modality,
        ratios=(6, 2, 2),
        join_duplicates=join_duplicates,
        gaze=gaze_files(gaze, **reading),
    )


def pairs_of_folders(root: Path, *, images: str, masks: str, mask_ending: str) -> list[Record]:
    """Pair the images and masks of two folders in ``root``, or of one.

    Raises:
        FileNotFoundError: a folder is missing, or the first holds no image.
        ValueError: a folder is not in ``root``, or no image at all has a mask.
    """
    for flag, name in {"images": images, "masks": masks}.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"--{flag} is {name!r}: expected a folder in --dataset_dir {root}")
        if not (root / name).is_dir():
            raise FileNotFoundError(f"{root / name}: no such folder; --{flag} names another.")
    records = list(pair_by_name(root / images, root / masks, mask_ending=mask_ending))
    if all(record.missing() for record in records):
        image, mask = (next((r.path.name for r in records if getattr(r, part)), "none") for part in ("image", "label"))
        raise ValueError(
            f"{root}: no image has a mask of its name, the first image is {image}, the first mask {mask}: "
            "--mask_ending, such as _mask, is what the name of a mask has more."
        )
    return records


def class_folder(
    root: Path,
    *,
    class_names: list | None = None,
    patient_pattern: str | None = None,
    balance: Literal["none", "smallest"] | Any = "none",
    ratios: Any = None,
    force: bool = False,
) -> ClassSet:
    r"""One folder of chest X-rays a class; 70/10/20 of each class by patient, if ``ratios`` do not say otherwise.

    Args:
        root: folder with one folder a class.
        class_names: the classes by number, which are the folders' names, such as '["normal", "bacterial", "covid19"]'
            to go on from weights of that order; without it they are numbered by the alphabet.
        patient_pattern: regular expression that a file's name begins with, whose first group is the patient, such as
            "(\d+)_"; without it every image counts as a patient of its own.
        balance: "none", "smallest", or a number of images for each class.
        ratios: shares of training, validation and test, such as 7,1,2; a split of share 0 stays empty.
        force: take images that do not look like frontal chest X-rays.
    """
    pattern = None if patient_pattern is None else compile_pattern(patient_pattern)
    shares = None if ratios is None else parse_ratios(ratios)
    images = []
    files = sorted(path for path in root.glob("[!.]*/*") if path.is_file())
    for path in (path for path in files if is_image(path)):
        patient = path.relative_to(root).as_posix() if pattern is None else patient_of(path, pattern)
        images.append(LabelledImage(path, path.parent.name, patient, root.name))
    if others := len(files) - len(images):
        print(f"{root.name}: {others} files in the folders of the classes are no images and were passed over")
    folders = sorted({item.class_name for item in images})
    if len(folders) < 2:
        raise ValueError(f"--dataset_dir {root}: expected a folder of images for each of two or more classes")
    class_names = order_of(class_names, folders, root=root)
    check_balance(balance, class_names)
    if shares is not None:
        check_sum(shares, images=len(images))
    arrange = partial(arrange_folder, name=root.resolve().name, class_names=class_names, balance=balance, ratios=shares)
    return ClassSet(images, arrange=arrange, force=force)


def arrange_folder(
    images: Sequence[LabelledImage],
    *,
    seed: int,
    name: str,
    class_names: Sequence[str],
    balance: Any,
    ratios: Sequence[float] | None,
) -> Arrangement:
    """Draw the images of each class and split them by patient."""
    sample = undersample(images, count_balance(balance, images, class_names), seed=seed)
    facts = {"name": name, "labels": dict(enumerate(class_names)), "split": "by patient"}
    splits = split_classes(sample, ratios=ratios, seed=seed)
    return Arrangement(
        facts if ratios is None else {**facts, "ratios": ratios},
        {split: (members, class_names) for split, members in splits.items()},
        notes=[f"train with --class_names '{json.dumps(class_names)}'"],
    )


def order_of(class_names: Sequence[Any] | None, folders: Sequence[str], *, root: Path) -> list[str]:
    """Return --class_names, or refuse them where they are not the names of the folders, each once.

    Args:
        class_names: the classes by number; None leaves the folders as they are.
        folders: their names.
        root: where they are, for the message.
    """
    names = list(folders) if class_names is None else [str(name) for name in class_names]
    if sorted(names) != sorted(folders):
        raise ValueError(
            f"--class_names is {json.dumps(names)}: expected the folders of images in --dataset_dir {root}, each once: "
            f"{json.dumps(list(folders))}."
        )
    return names


def compile_pattern(patient_pattern: Any) -> re.Pattern[str]:
    """Compile --patient_pattern, or say what is wrong with it."""
    option = f"--patient_pattern '{patient_pattern}'"
    try:
        pattern = re.compile(str(patient_pattern))
    except re.error as error:
        raise ValueError(f"{option}: no regular expression ({error}); {LEFT_OUT}") from error
    if not pattern.groups:
        raise ValueError(f"{option}: expected a group in it, such as '(\\d+)_'; {LEFT_OUT}")
    return pattern


def patient_of(path: Path, pattern: re.Pattern[str]) -> str:
    """Patient in the name of an image."""
    match = pattern.match(path.name)
    if not match or not match[1]:
        raise ValueError(f"{path}: --patient_pattern '{pattern.pattern}' finds no patient in this name; {LEFT_OUT}")
    return match[1]
