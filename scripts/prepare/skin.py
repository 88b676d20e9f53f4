"""Data sets of skin lesions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .pairs import DataSet, Record, own_folder


def ph2(root: Path) -> DataSet:
    """PH2: PH2 Dataset images/IMD002/ with IMD002_Dermoscopic_Image/IMD002.bmp and IMD002_lesion/IMD002_lesion.bmp."""
    folder = own_folder(root, "PH2Dataset", holds="PH2 Dataset images")
    cases = sorted((folder / "PH2 Dataset images").glob("IMD*"))
    if not cases:
        raise FileNotFoundError(f"{folder}: no folder PH2 Dataset images/IMD002 and so on here")
    records = {case.name: list(ph2_case(case)) for case in cases}
    if empty := [name for name, pairs in records.items() if not pairs]:
        print(f"PH2: {len(empty)} cases are left out: neither image nor lesion, the first is {empty[0]}")
    return DataSet(
        folder,
        name="PH2",
        description="Dermoscopy of melanocytic lesions (Mendonca et al., PH2: a dermoscopic image database for "
        "research and benchmarking, 2013)",
        licence="research and education only",
        records=[record for pairs in records.values() for record in pairs],
        label="lesion",
        modality="dermoscopy",
    )


def ph2_case(folder: Path) -> Iterator[Record]:
    """Pair image and mask in the folder of one case, such as IMD002; a folder without either gives nothing."""
    name = folder.name
    image = folder / f"{name}_Dermoscopic_Image" / f"{name}.bmp"
    label = folder / f"{name}_lesion" / f"{name}_lesion.bmp"
    if image.is_file() or label.is_file():
        yield Record(image if image.is_file() else None, label if label.is_file() else None, name)
