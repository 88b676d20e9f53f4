"""Data sets of street scenes, whose label maps become masks of the vehicles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .pairs import DataSet, Record, own_folder, pair_by_name, with_foreground

# Ids of Cityscapes as KITTI stores them: -1, a licence plate, is 255. Vehicles: car, truck, bus, caravan, trailer and
# train.
KITTI_IDS, KITTI_VEHICLES = frozenset({*range(34), 255}), frozenset(range(26, 32))
# Training ids of Cityscapes, as BDD100K has them: 255 is ignored. Vehicles: car, truck, bus, train.
BDD_IDS, BDD_VEHICLES = frozenset({*range(19), 255}), frozenset(range(13, 17))
STREETS: dict[str, Any] = {"label": "vehicle", "modality": "photograph"}


def kitti(root: Path) -> DataSet:
    """KITTI semantics: training/image_2 and training/semantic; vehicles: ids 26 to 31."""
    folder = next((root / name for name in ("semantics", "data_semantics") if (root / name).is_dir()), root)
    return DataSet(
        folder,
        name="KITTI",
        description="Street scenes with their vehicles (Alhaija et al., Augmented reality meets computer vision, 2018)",
        licence="CC BY-NC-SA 3.0",
        records=kitti_records(folder),
        **STREETS,
    )


def bdd100k(root: Path) -> DataSet:
    """BDD100K: images/10k/{train,val} and labels/sem_seg/masks/{train,val}; vehicles: ids 13 to 16."""
    folder = own_folder(root, "bdd100k", holds="images")
    return DataSet(
        folder,
        name="BDD100K",
        description="Street scenes with their vehicles (Yu et al., BDD100K: a diverse driving dataset for "
        "heterogeneous multitask learning, 2020)",
        licence="BSD 3-clause for research and education",
        records=bdd100k_records(folder),
        **STREETS,
    )


def kitti_records(folder: Path) -> Iterator[Record]:
    """Pair the images in training/image_2 with their label maps, ids of Cityscapes, in training/semantic.

    Raises:
        FileNotFoundError: a folder is missing or empty.
    """
    pairs = pair_by_name(folder / "training" / "image_2", folder / "training" / "semantic")
    yield from with_foreground(pairs, foreground=KITTI_VEHICLES, ids=KITTI_IDS)


def bdd100k_records(folder: Path) -> Iterator[Record]:
    """Pair the images in images/10k/{train,val} with their label maps in labels/sem_seg/masks/{train,val}.

    A part that is not there is left out, and a line says so; the test images have no public labels.

    Raises:
        FileNotFoundError: neither part is there, or one has no labels.
    """
    parts = [name for name in ("train", "val") if (folder / "images" / "10k" / name).is_dir()]
    if not parts:
        raise FileNotFoundError(f"{folder}: no folder images/10k/train or images/10k/val of BDD100K here.")
    for name in sorted({"train", "val"} - set(parts)):
        print(f"BDD100K: {name} is left out: {folder / 'images' / '10k' / name}: no such folder")
    for name in parts:
        pairs = pair_by_name(folder / "images" / "10k" / name, folder / "labels" / "sem_seg" / "masks" / name)
        yield from with_foreground(pairs, foreground=BDD_VEHICLES, ids=BDD_IDS)
