"""The three retinal vessel sets, CHASE_DB1, DRIVE and STARE, each with the masks of two observers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from clinbundles.transforms.readers.masks import read_mask

from .pairs import DataSet, Record, own_folder, pair_by_name

# The closest eyes of different children of CHASE_DB1 differ in 15 bits of the perceptual hash, where 24 already make
# near-duplicates of two frames.
VESSELS: dict[str, Any] = {"label": "vessel", "modality": "fundus photograph", "join_duplicates": False}


def chase_db1(root: Path, *, observer: int = 1) -> DataSet:
    """CHASE_DB1: Image_01L.jpg and the vessel masks of two observers, Image_01L_1stHO.png and Image_01L_2ndHO.png.

    Args:
        root: folder of the data set, or the one above it.
        observer: whose masks, 1 or 2.
    """
    folder = own_folder(root, "CHASEDB1", holds="Image_*.jpg")
    return DataSet(
        folder,
        name="CHASE_DB1",
        description="Fundus photographs of both eyes of 14 children with the vessels as observer "
        f"{check_observer(observer)} saw them (Fraz et al., An ensemble classification-based approach applied to "
        "retinal blood vessel segmentation, 2012)",
        licence="CC BY 4.0",
        records=chase_db1_records(folder, observer=observer),
        **VESSELS,
    )


def drive(root: Path, *, observer: int = 1) -> DataSet:
    """DRIVE: training/ and test/ with images/*.tif and 1st_manual/*.gif (the second observer's: 2nd_manual).

    Args:
        root: folder of the data set, or the one above it.
        observer: whose masks, 1 or 2.
    """
    folder = own_folder(root, "DRIVE", holds="training")
    return DataSet(
        folder,
        name="DRIVE",
        description=f"Fundus photographs with the vessels as observer {check_observer(observer)} saw them "
        "(Staal et al., Ridge-based vessel segmentation in color images of the retina, 2004)",
        licence="research, no copies",
        records=drive_records(folder, observer=observer),
        **VESSELS,
    )


def stare(root: Path, *, observer: int = 1) -> DataSet:
    """STARE: stare-images/im0001.ppm.gz and labels-ah/im0001.ah.ppm.gz (the second observer's: labels-vk).

    Args:
        root: folder of the data set, or the one above it.
        observer: whose masks, 1 or 2.
    """
    folder = own_folder(root, "STARE", holds="stare-images")
    return DataSet(
        folder,
        name="STARE",
        description=f"Fundus photographs with the vessels as observer {check_observer(observer)} saw them "
        "(Hoover et al., Locating blood vessels in retinal images by piecewise threshold probing of a matched filter "
        "response, 2000)",
        licence="not stated",
        records=stare_records(folder, observer=observer),
        **VESSELS,
    )


def retina(root: Path, *, observer: int = 1) -> DataSet:
    """RETINA: the folders of CHASE_DB1, DRIVE and STARE in one; a set that is not there is left out with a line.

    Args:
        root: folder of the three folders.
        observer: whose masks, 1 or 2.
    """
    check_observer(observer)
    sets = {
        "CHASE_DB1": (("chase_db1", "chasedb1"), chase_db1_records),
        "DRIVE": (("drive",), drive_records),
        "STARE": (("stare", "stare_sample"), stare_records),
    }
    folders = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    records: list[Record] = []
    for name, (folder_names, read) in sets.items():
        present = [folders[own] for own in folder_names if own in folders]
        if present:
            records += read(present[0], observer=observer)
        else:
            print(f"{name} is left out: no folder {' or '.join(folder_names)} in {root}")
    if not records:
        raise FileNotFoundError(f"{root}: no folder of CHASE_DB1, DRIVE or STARE here")
    return DataSet(
        root,
        name="RETINA",
        description=f"Fundus photographs of three sets with the vessels as observer {observer} saw them",
        licence="CHASE_DB1: CC BY 4.0; DRIVE: research, no copies; STARE: not stated",
        records=records,
        **VESSELS,
    )


def check_observer(observer: Any) -> int:
    """Refuse an observer whom no data set has."""
    if observer not in (1, 2) or isinstance(observer, bool):
        raise ValueError(f"--observer is {observer!r}: expected 1 or 2")
    return observer


def chase_db1_records(folder: Path, *, observer: int) -> Iterator[Record]:
    """Pair Image_01L.jpg with Image_01L_1stHO.png and so on; both eyes of a child are one group.

    Raises:
        FileNotFoundError: no such image.
    """
    images = sorted(folder.glob("Image_*.jpg"))
    if not images:
        raise FileNotFoundError(f"{folder}: no such folder of CHASE_DB1 images (Image_01L.jpg, ...) here.")
    for image in images:
        label = folder / f"{image.stem}_{'1st' if observer == 1 else '2nd'}HO.png"
        yield Record(image, label if label.is_file() else None, image.stem.rstrip("LR"))


def drive_records(folder: Path, *, observer: int) -> Iterator[Record]:
    """Pair images/21_training.tif with 1st_manual/21_manual1.gif and so on, in training/ and test/.

    A part without the observer's folder (the second saw the test images alone; the test masks come separately) is
    left out, and a line says so.

    Raises:
        FileNotFoundError: neither part is there with the observer's masks.
    """
    masks = f"{'1st' if observer == 1 else '2nd'}_manual"
    parts = [name for name in ("training", "test") if (folder / name / "images").is_dir()]
    labelled = [name for name in parts if (folder / name / masks).is_dir()]
    for name in sorted(set(parts) - set(labelled)):
        print(f"DRIVE: {name} images are left out: {folder / name / masks}: no such folder")
    if not labelled:
        raise FileNotFoundError(f"{folder}: no folder training/images or test/images with {masks} of DRIVE here.")
    for name in labelled:
        for image in sorted((folder / name / "images").glob("[!.]*.tif")):
            label = folder / name / masks / f"{image.stem.split('_')[0]}_manual{observer}.gif"
            yield converted(Record(image, label if label.is_file() else None, image.stem))


def stare_records(folder: Path, *, observer: int) -> Iterator[Record]:
    """Pair stare-images/im0001.ppm.gz with labels-ah/im0001.ah.ppm.gz (the second observer's: vk) and so on.

    Raises:
        FileNotFoundError: a folder is missing.
    """
    name = "ah" if observer == 1 else "vk"
    for record in pair_by_name(folder / "stare-images", folder / f"labels-{name}", mask_ending=f".{name}"):
        yield converted(record)


def converted(record: Record) -> Record:
    """Have a black and white mask converted whose file is of a kind that few tools read."""
    return replace(record, convert=partial(read_mask, record.label)) if record.label else record
