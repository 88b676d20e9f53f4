"""The two public collections of chest X-rays of the COVID-19 transfer study, read in their official layouts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd

from clinbundles.transforms.readers.folder import is_image

from .classes import LabelledImage

KERMANY = "Kermany et al."
_FRONTAL_VIEWS = {"PA", "AP", "AP SUPINE", "AP ERECT"}
_BACTERIA = {
    "bacterial", "chlamydophila", "e.coli", "klebsiella", "legionella", "mycoplasma bacterial pneumonia", "nocardia",
    "staphylococcus", "mrsa", "streptococcus",
}  # fmt: skip


def find_folder(root: Path, name: str, *, holds: str) -> Path:
    """Folder with ``holds`` in it out: ``root`` itself, or the one called ``name`` at most two folders below it.

    Raises:
        FileNotFoundError: there is none.
    """
    for folder in (root, root / name, *sorted(root.glob(f"*/{name}"))):
        if any(folder.glob(holds)):
            return folder
    raise FileNotFoundError(f"{root}: no folder {name} here or one folder below, with {holds} in it.")


def kermany(root: Path) -> list[LabelledImage]:
    """Folder chest_xray/ or one above it in; its images out, as normal, bacterial or viral.

    Children of one to five years (Kermany, Zhang and Goldbaum, *Labeled optical coherence tomography (OCT) and chest
    X-ray images for classification*, 2018). ``train`` and ``test`` are read; the 16 images of ``val`` are not, as the
    study's 5840 images show. A patient is the personNNN of a file's name, wherever it lies, or the IM-NNNN of a normal
    one.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a file whose name tells neither patient nor kind of pneumonia.
    """
    folder = find_folder(root, "chest_xray", holds="train/NORMAL")
    return [
        _kermany_image(path)
        for part in ("train", "test")
        for kind in ("NORMAL", "PNEUMONIA")
        for path in sorted((folder / part / kind).glob("*"))
        if is_image(path)
    ]


def _kermany_image(path: Path) -> LabelledImage:
    normal = path.parent.name == "NORMAL"
    pattern = r"((?:NORMAL2-)?IM-\d+)-" if normal else r"(person\d+)_(bacteria|virus)_"
    found = re.match(pattern, path.name)
    if not found:
        expected = "IM-NNNN-… or NORMAL2-IM-NNNN-…" if normal else "personNNN_bacteria_… or personNNN_virus_…"
        raise ValueError(f"{path}: expected a name like {expected}.")
    class_name = "normal" if normal else {"bacteria": "bacterial", "virus": "viral"}[found[2]]
    return LabelledImage(path, class_name, f"kermany-{found[1]}", KERMANY)


def cohen(root: Path) -> list[LabelledImage]:
    """Folder covid-chestxray-dataset/ or one above it in; its frontal X-rays out, as covid19, bacterial or normal.

    Cohen et al., *COVID-19 image data collection: prospective predictions are the future*, 2020. Lateral views, CT
    slices, files that are not there, unlabelled images and other diseases are left out. ``source`` is the host of the
    page that the image comes from.

    Raises:
        FileNotFoundError: no metadata.csv.
        ValueError: it lacks a column.
    """
    folder = find_folder(root, "covid-chestxray-dataset", holds="metadata.csv")
    table = pd.read_csv(folder / "metadata.csv", dtype=str, keep_default_na=False)
    for column in ("patientid", "finding", "view", "modality", "filename", "url"):
        if column not in table:
            raise ValueError(f"{folder / 'metadata.csv'}: has no column {column}.")
    return list(_cohen_images(folder, table))


def _cohen_images(folder: Path, table: pd.DataFrame) -> Iterator[LabelledImage]:
    seen: set[str] = set()
    for row in table.sort_values("filename").itertuples():
        class_name = class_of_finding(row.finding)
        path = folder / "images" / str(row.filename)
        frontal = row.modality == "X-ray" and row.view.upper() in _FRONTAL_VIEWS
        if class_name is None or not frontal or not path.is_file() or row.filename in seen:
            continue
        seen.add(str(row.filename))
        yield LabelledImage(path, class_name, f"cohen-{row.patientid}", _host(row.url))


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.removeprefix("www.") or "unknown"
    except ValueError:  # half an address
        return "unknown"


def class_of_finding(finding: str) -> str | None:
    """A finding as both releases of the metadata write it ("COVID-19, ARDS", "Pneumonia/Viral/COVID-19") in, class out.

    None for what is no class of the study.
    """
    words = {word.strip().lower() for word in re.split("[,/]", finding)}
    if "covid-19" in words:
        return "covid19"
    if words & _BACTERIA:
        return "bacterial"
    return "normal" if words == {"no finding"} else None
