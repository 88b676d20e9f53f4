"""Data sets of cells and nuclei, whose instances become one mask of cell or no cell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clinbundles.transforms.readers.masks import read_mask

from .instance_masks import decode_runs, read_coco, union_of_polygons
from .pairs import DataSet, Record, own_folder

# Wells of LIVECell that have nothing in common differ in 8 bits of the perceptual hash, dark fields of single nuclei of
# BOWL2018 in 23, where 24 already make near-duplicates of two frames.
CULTURES: dict[str, Any] = {"label": "cell", "modality": "phase-contrast microscopy", "join_duplicates": False}


def bowl2018(root: Path) -> DataSet:
    """Data Science Bowl 2018: stage1_train/ID/images/ID.png, and one mask a nucleus in stage1_train/ID/masks/."""
    folder = own_folder(root, "stage1_train", holds="*/images/*.png")
    return DataSet(
        folder,
        name="BOWL2018",
        description="Microscopy of nuclei of five image types (Caicedo et al., Nucleus segmentation across imaging "
        "experiments: the 2018 Data Science Bowl, 2019)",
        licence="CC0",
        records=bowl2018_records(folder),
        label="nucleus",
        modality="microscopy",
        join_duplicates=False,
    )


def sartorius(root: Path) -> DataSet:
    """Sartorius cell instances: train/*.png, and train.csv with the run lengths of one cell a row."""
    folder = own_folder(root, "sartorius-cell-instance-segmentation", holds="train.csv")
    return DataSet(
        folder,
        name="SARTORIUS",
        description="Phase-contrast microscopy of neuronal cells (Kaggle, Sartorius cell instance segmentation, 2021)",
        licence="competition rules",
        records=sartorius_records(folder),
        **CULTURES,
    )


def livecell(root: Path) -> DataSet:
    """LIVECell: images/**/*.tif, and annotations/LIVECell/livecell_coco_{train,val,test}.json with polygons."""
    folder = own_folder(root, "LIVECell_dataset_2021", holds="annotations")
    return DataSet(
        folder,
        name="LIVECell",
        description="Phase-contrast microscopy of eight cell lines (Edlund et al., LIVECell: a large-scale dataset for "
        "label-free live cell segmentation, 2021)",
        licence="CC BY-NC 4.0",
        records=livecell_records(folder),
        **CULTURES,
    )


def bowl2018_records(folder: Path) -> Iterator[Record]:
    """Pair the images ID/images/ID.png with the folders ID/masks/ of one PNG mask a nucleus.

    Raises:
        FileNotFoundError: no such image.
    """
    images = sorted(folder.glob("*/images/*.png"))
    if not images:
        raise FileNotFoundError(f"{folder}: no folder ID/images with a PNG file of the Data Science Bowl 2018 here.")
    for image in images:
        masks = image.parents[1] / "masks"
        label = masks if masks.is_dir() else None
        yield Record(image, label, image.stem, convert=partial(union_of_masks, masks))


def union_of_masks(folder: Path) -> np.ndarray:
    """Join a folder of PNG masks of one size, one instance each, to one mask, bool (H, W).

    Raises:
        ValueError: there is no mask, or they differ in size.
    """
    files = sorted(folder.glob("*.png"))
    if not files:
        raise ValueError(f"{folder}: no PNG mask here.")
    union = read_mask(files[0])
    for path in files[1:]:
        mask = read_mask(path)
        if mask.shape != union.shape:
            (height, width), (mask_height, mask_width) = union.shape, mask.shape
            raise ValueError(f"{path}: mask of {mask_width}x{mask_height} px, {files[0].name} has {width}x{height}.")
        union |= mask
    return union


def sartorius_records(folder: Path) -> Iterator[Record]:
    """Pair the images train/*.png with their rows in train.csv, one cell a row as run lengths.

    The fields of one well, and its later frames, are one group: ``sample_id`` tells the well and the vessel, as in
    ``shsy5y[diff]_E10-4_Vessel-361_Ph_3``. Where there is none, the image is the group.

    Raises:
        FileNotFoundError: the table or the folder is missing.
        ValueError: the table lacks a column, or a size is no number.
    """
    table_file, image_folder = folder / "train.csv", folder / "train"
    if not table_file.is_file() or not image_folder.is_dir():
        raise FileNotFoundError(f"{folder}: no folder with train.csv and train/ of Sartorius here.")
    table = pd.read_csv(table_file, dtype=str, keep_default_na=False)
    missing = [name for name in ("id", "annotation", "width", "height") if name not in table.columns]
    if missing:
        raise ValueError(f"{table_file}: no column {missing[0]!r}, only {', '.join(table.columns)}.")
    for column in ("width", "height"):
        wrong = [value for value in table[column] if not (value.isdecimal() and int(value) > 0)]
        if wrong:
            raise ValueError(f"{table_file}: column {column!r} holds {wrong[0]!r}, expected a number of pixels.")
    files = set()
    for name, rows in table.groupby("id", sort=True):
        image = image_folder / f"{name}.png"
        files.add(image)
        well = re.match(r"(.+_[A-Z]\d+)-\d+_(Vessel-\d+)", rows["sample_id"].iloc[0]) if "sample_id" in rows else None
        yield Record(
            image,
            table_file,
            f"{well[1]}_{well[2]}" if well else str(name),
            convert=partial(union_of_runs, rows, path=table_file),
            fault=None if image.is_file() else f"{table_file}: id {name!r} has no image {image}.",
        )
    for image in sorted(set(image_folder.glob("*.png")) - files):
        yield Record(image, None, image.stem)


def union_of_runs(rows: pd.DataFrame, *, path: Path) -> np.ndarray:
    """Join the rows of one image in the table at ``path``, one cell each, to a mask, bool (height, width).

    Raises:
        ValueError: the run lengths of a row are wrong, or the rows give the image two sizes.
    """
    sizes = sorted({(int(width), int(height)) for width, height in zip(rows["width"], rows["height"], strict=True)})
    if len(sizes) > 1:
        raise ValueError(f"{path}: {rows['id'].iloc[0]} is {sizes[0]} and {sizes[1]} px in size.")
    union = np.zeros(sizes[0][::-1], dtype=bool)
    for index, text in rows["annotation"].items():
        try:
            union |= decode_runs(text, height=union.shape[0], width=union.shape[1])
        except ValueError as error:
            raise ValueError(f"{path}: line {int(str(index)) + 2}, column 'annotation': {error}") from error
    return union


def livecell_records(folder: Path) -> Iterator[Record]:
    """Pair the images images/**/*.tif with their polygons in annotations/**/livecell_coco_*.json.

    The images of one well (the crops of its fields, over days) are one group: ``A172_Phase_C7_1_00d20h00m_4`` is of
    ``A172_C7``. Images that no list names are left out, and a line tells how many.

    Raises:
        FileNotFoundError: there is no list.
        ValueError: a list is not as COCO has it, or two name the same image.
    """
    lists = sorted((folder / "annotations").rglob("livecell_coco_*.json"))
    if not lists:
        raise FileNotFoundError(f"{folder}: no folder annotations with a livecell_coco_*.json here.")
    files = {path.name: path for path in sorted((folder / "images").rglob("*.tif"))}
    list_of: dict[str, Path] = {}
    for path in lists:
        for entry, cells in read_coco(path):
            name = str(entry["file_name"])
            if name in list_of:
                raise ValueError(f"{path}: {name} is also in {list_of[name].name}.")
            list_of[name] = path
            well = re.match(r"(.+?)_Phase_([A-Z]\d+)_", name)
            yield Record(
                files.get(name, folder / "images" / name),
                path,
                f"{well[1]}_{well[2]}" if well else Path(name).stem,
                convert=partial(union_of_polygons, cells, size=(int(entry["width"]), int(entry["height"])), path=path),
                fault=None if name in files else f"{path}: {name} is not below {folder / 'images'}.",
            )
    if others := files.keys() - list_of.keys():
        print(f"LIVECell: {len(others)} images are left out: no list names them, the first is {min(others)}")
