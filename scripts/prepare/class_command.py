"""From labelled images to one JSON datalist for a classifier, with seeded splits that no patient crosses.

    python scripts/prepare/class_command.py covid_xray --dataset_dir DIR --output FILE
    python scripts/prepare/class_command.py folder --dataset_dir DIR --output FILE

``covid_xray`` makes both data sets of the COVID-19 transfer study out of the collections of Kermany et al. and Cohen et
al.; ``folder`` takes one folder of images a class. Run the script with a command and --help for the flags.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fire

from clinbundles.engines.outputs.files import write_atomically
from clinbundles.scripts.prepare.chest_xrays import cohen, kermany
from clinbundles.scripts.prepare.classes import (
    Checked,
    LabelledImage,
    as_items,
    check,
    leaks,
    split_classes,
    undersample,
)
from clinbundles.scripts.prepare.datalist import datalist_as_json
from clinbundles.transforms.readers.chest_xray import ChestXRayReader
from clinbundles.transforms.readers.folder import is_image

CLASSES = ("normal", "bacterial", "covid19")
PRETRAINING_CLASSES = ("normal", "bacterial", "viral")


def covid_xray(
    dataset_dir: str,
    output: str,
    *,
    balance: Any = "smallest",
    paper_protocol: bool = False,
    seed: int = 0,
    skip_bad: bool = False,
) -> None:
    """Write one datalist with both data sets of the COVID-19 transfer study.

    Splits training, validation and test are Dataset_1 (normal, bacterial, covid19), 70/10/20 of each class. Splits
    pretraining and pretraining_validation are Dataset_0 (normal, bacterial, viral; 87.5/12.5), without the patients of
    Dataset_1's validation and test. Split same_source has the X-rays of the COVID-19 collection that show no
    COVID-19 and no patient of the others: whoever tells the collections apart instead of the diseases fails on them.

    Args:
        dataset_dir: folder with chest_xray/ and covid-chestxray-dataset/ in it or one folder below; the paths of the
            datalist start from it.
        output: JSON file to write.
        balance: "smallest" (of each class as many images as the rarest has), "none", or the number of normal, bacterial
            and covid19 images, such as 544,500,456.
        paper_protocol: split image by image, and pretrain on all images, as the paper did; what leaks is counted.
        seed: of the choice and of the split.
        skip_bad: list the files that cannot be used, here and in the datalist, and go on without them.
    """
    root, target = check_paths(dataset_dir, output)
    check_seed(seed)
    children, adults = kermany(root), cohen(root)
    checked = check([*children, *adults], root=root, reader=ChestXRayReader(), skip_bad=skip_bad)
    cohen_files = {item.image for item in adults}
    by_collection: dict[bool, list[LabelledImage]] = {True: [], False: []}
    for item in checked.images:
        by_collection[item.image in cohen_files].append(item)
    from_kermany, from_cohen = by_collection[False], by_collection[True]
    candidates = [item for item in from_kermany if item.class_name in CLASSES]
    candidates += [item for item in from_cohen if item.class_name == "covid19"]
    dataset_1 = undersample(candidates, parse_balance(balance, candidates), seed=seed)
    splits = split_classes(dataset_1, seed=seed, by_group=not paper_protocol)
    held_out = {item.group for name in ("validation", "test") for item in splits[name]}
    dataset_0 = [item for item in from_kermany if paper_protocol or item.group not in held_out]
    pretraining = split_classes(dataset_0, seed=seed, by_group=not paper_protocol, test=False)
    others = {item.group for item in [*candidates, *dataset_0]}
    same_source = [item for item in from_cohen if item.group not in others]
    lists = {name: list(as_items(items, root=root, class_names=CLASSES)) for name, items in splits.items()}
    for name, items in pretraining.items():
        split = "pretraining" if name == "training" else f"pretraining_{name}"
        lists[split] = list(as_items(items, root=root, class_names=PRETRAINING_CLASSES))
    lists["same_source"] = list(as_items(same_source, root=root, class_names=CLASSES))
    found = {
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
        "leaks": found,
    }
    write(target, facts, checked, lists, root=root, seed=seed)
    for pair, counts in found.items():
        print(
            f"{pair.replace('_to_', ' -> ')}: {counts['seen_images']} of {counts['test_images']} test images seen, "
            f"{counts['images_of_seen_patients']} of patients seen"
        )


def folder(
    dataset_dir: str,
    output: str,
    *,
    patient_pattern: str | None = None,
    balance: Any = "none",
    seed: int = 0,
    skip_bad: bool = False,
    force: bool = False,
) -> None:
    r"""Write a datalist of one folder of chest X-rays a class, 70/10/20 of each class by patient.

    Args:
        dataset_dir: folder with one folder a class; the classes are numbered in the order of their names.
        output: JSON file to write.
        patient_pattern: regular expression that a file's name begins with, whose first group is the patient, such as
            "(\d+)_"; without it every image counts as a patient of its own.
        balance: "none", "smallest", or a number of images for each class.
        seed: of the choice and of the split.
        skip_bad: list the files that cannot be used, here and in the datalist, and go on without them.
        force: take images that do not look like frontal chest X-rays.
    """
    root, target = check_paths(dataset_dir, output)
    check_seed(seed)
    pattern = None if patient_pattern is None else compile_pattern(patient_pattern)
    images = []
    for path in sorted(path for path in root.glob("[!.]*/*") if is_image(path)):
        patient = path.relative_to(root).as_posix() if pattern is None else patient_of(path, pattern)
        images.append(LabelledImage(path, path.parent.name, patient, root.name))
    class_names = sorted({item.class_name for item in images})
    if len(class_names) < 2:
        raise ValueError(f"--dataset_dir {root}: expected a folder of images for each of two or more classes")
    checked = check(images, root=root, reader=ChestXRayReader(force=force), skip_bad=skip_bad)
    chosen = undersample(checked.images, parse_balance(balance, checked.images, class_names), seed=seed)
    lists = {
        name: list(as_items(items, root=root, class_names=class_names))
        for name, items in split_classes(chosen, seed=seed).items()
    }
    facts = {"name": root.resolve().name, "labels": dict(enumerate(class_names)), "split": "by patient"}
    write(target, facts, checked, lists, root=root, seed=seed)
    print(f'train with --class_names "{class_names}"')


def check_paths(dataset_dir: Any, output: Any) -> tuple[Path, Path]:
    """Folder of the images and file to write, both checked."""
    root, target = Path(str(dataset_dir)), Path(str(output))
    if not root.is_dir():
        raise FileNotFoundError(f"--dataset_dir {root}: no such folder")
    if target.is_dir() or not target.parent.is_dir():
        raise ValueError(f"--output {target}: expected a file in a folder that exists")
    return root, target


def check_seed(seed: Any) -> None:
    """Refuse what seeds no random order."""
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ValueError(f"--seed is {seed!r}: expected a whole number from 0 to 2**32 - 1")


def compile_pattern(patient_pattern: Any) -> re.Pattern[str]:
    """Regular expression of --patient_pattern, checked."""
    try:
        pattern = re.compile(str(patient_pattern))
    except re.error as error:
        raise ValueError(f"--patient_pattern {patient_pattern!r}: no regular expression ({error})") from error
    if not pattern.groups:
        raise ValueError(f'--patient_pattern {patient_pattern!r}: expected a group in it, such as "(\\d+)_"')
    return pattern


def patient_of(path: Path, pattern: re.Pattern[str]) -> str:
    """Patient in the name of an image."""
    found = pattern.match(path.name)
    if not found or not found[1]:
        raise ValueError(f"{path}: --patient_pattern {pattern.pattern!r} finds no patient in this name")
    return found[1]


def parse_balance(
    balance: Any, images: Sequence[LabelledImage], class_names: Sequence[str] = CLASSES
) -> dict[str, int]:
    """What --balance asks for in, number of images of each class out."""
    available = Counter(item.class_name for item in images)
    if missing := [name for name in class_names if not available[name]]:
        raise ValueError(f"there is no image of class {missing[0]}")
    if balance == "none":
        return dict(available)
    if balance == "smallest":
        return dict.fromkeys(available, min(available.values()))
    counts = list(balance) if isinstance(balance, tuple | list) else [balance]
    if len(counts) != len(class_names) or not all(type(count) is int and count > 0 for count in counts):
        raise ValueError(
            f"--balance is {balance!r}: expected smallest, none or numbers of images for {', '.join(class_names)}"
        )
    return dict(zip(class_names, counts, strict=True))


def write(
    target: Path,
    facts: Mapping[str, Any],
    checked: Checked,
    lists: Mapping[str, list[dict[str, Any]]],
    *,
    root: Path,
    seed: int,
) -> None:
    """Write the datalist, and say what is in it."""
    copies = [
        [first.relative_to(root).as_posix(), second.relative_to(root).as_posix()] for first, second in checked.copies
    ]
    notes = {"seed": seed, "data_sha256": checked.sha256, "copies": copies, "skipped": checked.skipped}
    # MONAI takes the first item of a split to know its kind: an empty one must not be there.
    filled = {name: items for name, items in lists.items() if items}
    write_atomically(target, datalist_as_json({**facts, **notes, **filled}))
    for entry in checked.skipped:
        print(f"skipped {entry['file']}: {entry['reason']}")
    for name, items in lists.items():
        counts = Counter(item["label"] for item in items)
        patients = len({item["group"] for item in items})
        print(f"{name}: {len(items)} images ({'/'.join(str(counts[k]) for k in sorted(counts))}), {patients} patients")
    print(f"{len(copies)} copies under two patients joined; wrote {target}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; what is wrong with its input ends as one sentence."""
    try:
        fire.Fire({"covid_xray": covid_xray, "folder": folder}, command=arguments, name="prepare_classes.py")
    except (ValueError, OSError) as error:
        sys.exit(f"prepare_classes: {error}")


if __name__ == "__main__":
    main()
