"""Data sets of cells and nuclei: each instance for itself, or all of an image as one mask of cell or no cell."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from clinbundles.transforms.readers.coco import decode_mask, encode_mask, read_coco
from clinbundles.transforms.readers.masks import read_mask

from .annotations import AnnotatedImage, Annotation, CellSet, InstanceSet, annotation_of
from .instance_masks import decode_runs, union_of_polygons
from .pairs import DataSet, Record, own_folder

# Wells of LIVECell that have nothing in common differ in 8 bits of the perceptual hash, dark fields of single nuclei of
# BOWL2018 in 23, where 24 already make near-duplicates of two frames: so no near-duplicates are looked for.
JOIN_DUPLICATES = False
CULTURES = {"label": "cell", "modality": "phase-contrast microscopy"}
# Images of LIVECell of which a few cells are annotated and many more are there, as its users found:
# github.com/sartorius-research/LIVECell/issues/21.
INCOMPLETE = frozenset(
    {
        "A172_Phase_A7_1_01d04h00m_3",
        "A172_Phase_D7_1_01d20h00m_4",
        "BT474_Phase_B3_1_03d00h00m_3",
        "BV2_Phase_A4_2_00d00h00m_1",
        "BV2_Phase_A4_2_02d04h00m_3",
        "BV2_Phase_C4_1_01d16h00m_3",
        "BV2_Phase_D4_1_00d12h00m_2",
        "SHSY5Y_Phase_D10_1_01d16h00m_4",
        "SkBr3_Phase_H3_2_00d00h00m_1",
    }
)
SPLIT_OF_LIST = {"train": "training", "val": "validation", "test": "test"}


def bowl2018(root: Path) -> CellSet:
    """Data Science Bowl 2018: stage1_train/ID/images/ID.png, and one mask a nucleus in stage1_train/ID/masks/."""
    folder = own_folder(root, "stage1_train", holds="*/images/*.png")
    records = list(bowl2018_records(folder))
    facts: dict[str, Any] = {
        "name": "BOWL2018",
        "description": "Microscopy of nuclei of five image types (Caicedo et al., Nucleus segmentation across imaging "
        "experiments: the 2018 Data Science Bowl, 2019)",
        "licence": "CC0",
        "label": "nucleus",
        "modality": "microscopy",
    }
    images = [
        AnnotatedImage(r.path, r.group, partial(nuclei, r.path.parents[1] / "masks"), fault=r.missing())
        for r in records
    ]
    return CellSet(
        DataSet(folder, records=records, join_duplicates=JOIN_DUPLICATES, **facts),
        InstanceSet(images=images, by_look=True, **facts),
    )


def sartorius(root: Path) -> CellSet:
    """Sartorius cell instances: train/*.png, and train.csv with the run lengths of one cell a row."""
    folder = own_folder(root, "sartorius-cell-instance-segmentation", holds="train.csv")
    facts: dict[str, Any] = {
        "name": "SARTORIUS",
        "description": "Phase-contrast microscopy of neuronal cells (Kaggle, Sartorius cell instance segmentation, "
        "2021)",
        "licence": "competition rules",
        **CULTURES,
    }
    images = list(sartorius_images(folder))
    records = [
        Record(i.image, folder / "train.csv", i.group, convert=partial(union_of_cells, i.annotate), fault=i.fault)
        for i in images
    ]
    return CellSet(
        DataSet(folder, records=records, join_duplicates=JOIN_DUPLICATES, **facts),
        InstanceSet(images=images, **facts),
    )


def livecell(root: Path, *, clean_split: bool = False) -> CellSet:
    """LIVECell: images/**/*.tif, and annotations/LIVECell/livecell_coco_{train,val,test}.json with polygons.

    Args:
        root: the folder.
        clean_split: leave out the second of two entries for one image, an image of training that is in validation or
            test too, and nine images of which most cells are not annotated.
    """
    folder = own_folder(root, "LIVECell_dataset_2021", holds="annotations")
    facts: dict[str, Any] = {
        "name": "LIVECell",
        "description": "Phase-contrast microscopy of eight cell lines (Edlund et al., LIVECell: a large-scale dataset "
        "for label-free live cell segmentation, 2021)",
        "licence": "CC BY-NC 4.0",
        **CULTURES,
    }
    entries = list(livecell_entries(folder, clean_split=clean_split))
    return CellSet(
        DataSet(folder, records=livecell_records(entries), join_duplicates=JOIN_DUPLICATES, **facts),
        InstanceSet(images=livecell_images(entries), **facts),
    )


def bowl2018_records(folder: Path) -> Iterator[Record]:
    """Pair the images ID/images/ID.png with the folders ID/masks/ of one PNG mask a nucleus.

    Raises:
        FileNotFoundError: no such image.
    """
    images = sorted(folder.glob("[!.]*/images/[!.]*.png"))
    if not images:
        raise FileNotFoundError(f"{folder}: no folder ID/images with a PNG file of the Data Science Bowl 2018 here.")
    for image in images:
        masks = image.parents[1] / "masks"
        label = masks if masks.is_dir() else None
        yield Record(image, label, image.stem, convert=partial(union_of_masks, masks))


def nuclei(folder: Path) -> Iterator[Annotation]:
    """Read a folder of PNG masks, one instance each.

    Raises:
        ValueError: there is no mask.
    """
    files = sorted(folder.glob("[!.]*.png"))
    if not files:
        raise ValueError(f"{folder}: no PNG mask here.")
    for path in files:
        yield Annotation(f"mask {path.name}", segmentation=encode_mask(read_mask(path)))


def union_of_masks(folder: Path) -> np.ndarray:
    """Join a folder of PNG masks of one size, one instance each, to one mask, bool (H, W).

    Raises:
        ValueError: there is no mask, or they differ in size.
    """
    files = sorted(folder.glob("[!.]*.png"))
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


def sartorius_images(folder: Path) -> Iterator[AnnotatedImage]:
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
        yield AnnotatedImage(
            image,
            f"{well[1]}_{well[2]}" if well else str(name),
            partial(cells_of_rows, rows, path=table_file),
            size=(int(rows["width"].iloc[0]), int(rows["height"].iloc[0])),
            fault=None if image.is_file() else f"{table_file}: id {name!r} has no image {image}.",
        )
    for image in sorted(set(image_folder.glob("[!.]*.png")) - files):
        yield AnnotatedImage(image, image.stem, lambda: (), fault=f"{image}: image without mask.")


def cells_of_rows(rows: pd.DataFrame, *, path: Path) -> Iterator[Annotation]:
    """Take the rows of one image in the table at ``path`` for a cell each.

    Raises:
        ValueError: the run lengths of a row are wrong, or the rows give the image two sizes.
    """
    sizes = sorted({(int(width), int(height)) for width, height in zip(rows["width"], rows["height"], strict=True)})
    if len(sizes) > 1:
        raise ValueError(f"{path}: {rows['id'].iloc[0]} is {sizes[0]} and {sizes[1]} px in size.")
    for index, text in rows["annotation"].items():
        line = int(str(index)) + 2
        try:
            mask = decode_runs(text, height=sizes[0][1], width=sizes[0][0])
        except ValueError as error:
            raise ValueError(f"{path}: line {line}, column 'annotation': {error}") from error
        yield Annotation(f"line {line}", segmentation=encode_mask(mask))


def union_of_cells(annotate: Callable[[], Iterable[Annotation]]) -> np.ndarray:
    """Join the run lengths of one image's cells to a mask, bool (H, W)."""
    return np.logical_or.reduce([decode_mask(cell.segmentation) for cell in annotate()])


class LivecellEntry(NamedTuple):
    """An image in a list of LIVECell: its file, the list, its entry and its annotations there.

    The images of one well (the crops of its fields, over days) are one group: ``A172_Phase_C7_1_00d20h00m_4`` is of
    ``A172_C7``.
    """

    image: Path
    path: Path
    entry: dict[str, Any]
    annotations: list[dict[str, Any]]
    fault: str | None
    unused: str | None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px."""
        return self.entry["width"], self.entry["height"]

    @property
    def group(self) -> str:
        """The culture and the well in it."""
        well = re.match(r"(.+?)_Phase_([A-Z]\d+)_", self.image.name)
        return f"{well[1]}_{well[2]}" if well else self.image.stem

    @property
    def split(self) -> str | None:
        """The split that the list is of."""
        return SPLIT_OF_LIST.get(self.path.stem.rpartition("_")[2])


def livecell_entries(folder: Path, *, clean_split: bool) -> Iterator[LivecellEntry]:
    """Pair the images images/**/*.tif with their polygons in annotations/**/livecell_coco_*.json.

    Images that no list names are left out, and a line tells how many.

    Raises:
        FileNotFoundError: there is no list.
        ValueError: a list is not as COCO has it.
    """
    lists = sorted((folder / "annotations").rglob("livecell_coco_*.json"))
    if not lists:
        raise FileNotFoundError(f"{folder}: no folder annotations with a livecell_coco_*.json here.")
    files = {path.name: path for path in sorted((folder / "images").rglob("[!.]*.tif"))}
    names = {path: [str(entry["file_name"]) for entry in read_coco(path).images.values()] for path in lists}
    held_out = {name for path in lists if not path.stem.endswith("_train") for name in names[path]}
    for path in lists:
        coco, seen = read_coco(path), set()
        for name, (image_id, entry) in zip(names[path], coco.images.items(), strict=True):
            unused = None
            if clean_split and name in seen:
                unused = "that stand in their list before"
            elif clean_split and path.stem.endswith("_train") and name in held_out:
                unused = "that are in validation or test too"
            elif clean_split and Path(name).stem in INCOMPLETE:
                unused = "of which most cells are not annotated"
            seen.add(name)
            fault = None if name in files else f"{path}: {name} is not below {folder / 'images'}."
            image = files.get(name, folder / "images" / name)
            yield LivecellEntry(image, path, entry, coco.annotations[image_id], fault, unused)
    if others := files.keys() - {name for path in lists for name in names[path]}:
        print(f"LIVECell: {len(others)} images are left out: no list names them, the first is {min(others)}")


def livecell_records(entries: list[LivecellEntry]) -> Iterator[Record]:
    """Pair each image with the mask that its polygons make.

    Raises:
        ValueError: an image has two entries.
    """
    list_of: dict[str, Path] = {}
    for entry in entries:
        name = entry.image.name
        if entry.unused:
            continue
        if name in list_of:
            raise ValueError(
                f"{entry.path}: {name} is also in {list_of[name].name}. --clean_split true leaves one of both out."
            )
        list_of[name] = entry.path
        convert = partial(union_of_polygons, entry.annotations, size=entry.size, path=entry.path)
        yield Record(entry.image, entry.path, entry.group, convert=convert, fault=entry.fault)


def livecell_images(entries: list[LivecellEntry]) -> Iterator[AnnotatedImage]:
    """Take the images with their annotations; one with two entries comes twice, as in the published results."""
    for entry in entries:
        yield AnnotatedImage(
            entry.image,
            entry.group,
            partial(map, annotation_of, entry.annotations),
            size=entry.size,
            split=entry.split,
            fault=entry.fault,
            unused=entry.unused,
            id=entry.entry["id"] if type(entry.entry["id"]) is int else None,
        )
