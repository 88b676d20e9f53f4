"""``clinbundles label-slices``: label maps for generated slices, from drawn files or by thresholds of HU."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

SUFFIXES = (".png", ".tif", ".tiff", ".bmp")


def label(
    dataset_dir: str,
    *,
    by: Literal["files", "automatic"] = "files",
    class_names: Any = "background,body,left lung,right lung",
    window_hu: Any = "-1000,600",
    labeller: str | None = None,
) -> None:
    """Give the slices that generate has written their label maps, and check each.

    With "files" each slice images/000000.png has its label map in labels/000000.png (or .tif, .bmp), of the
    same size, a number of a class each pixel. With "automatic" thresholds of HU draw them, which is for chest CT alone.

    Args:
        dataset_dir: folder of the slices, with their datalist.json, which then names the label maps.
        by: files, or automatic.
        class_names: names of the classes, the background first, with commas between them.
        window_hu: HU of black and of white in the slices, for automatic.
        labeller: who made the files, such as people, as the datalist then says it; "files" if not given.
    """
    from clinbundles.engines.outputs.files import write_atomically
    from clinbundles.scripts.prepare.datalist import datalist_as_json, items_of
    from clinbundles.transforms.hu_labels import LABELLER
    from clinbundles.transforms.readers.slices import read_datalist

    folder = Path(str(dataset_dir))
    path = folder / "datalist.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; clinbundles run ct_datasetgan generate writes it.")
    content = read_datalist(path)
    items = items_of(content)
    if not items:
        raise ValueError(f"{path}: lists no slices.")
    names = read_names(class_names)
    if by == "automatic" and labeller is not None:
        raise ValueError(f"--labeller {labeller} is of label maps from files: automatic ones say what they are.")
    if labeller is not None and not str(labeller).strip():
        raise ValueError("--labeller is empty: expected who made the files, such as people.")
    present = [file for item in items for file in files_of(folder, item)]
    if by == "automatic" and present and content.get("labeller") != LABELLER:
        raise ValueError(
            f"{present[0]}: is there already, and automatic label maps would take its place: move it away."
        )
    (folder / "labels").mkdir(exist_ok=True)
    facts: dict[str, Any] = {"labels": {str(k): name for k, name in enumerate(names)}}
    if by == "automatic":
        window = read_window(window_hu)
        facts |= {"labeller": _draw(folder, items, names, window), "window_hu": list(window)}
    else:
        _collect(folder, items, names)
        facts["labeller"] = "files" if labeller is None else str(labeller)
    content |= facts
    write_atomically(path, datalist_as_json(content))
    print(f"{len(items)} slices came in, {len(items)} have a label map, labeller: {facts['labeller']}")
    print(f"wrote {path}")


def read_names(class_names: Any) -> list[str]:
    """Read the names of classes, as ``background,nucleus`` or a list says them.

    Raises:
        ValueError: there are fewer than two, or one is empty or stands twice.
    """
    parts = class_names.split(",") if isinstance(class_names, str) else class_names
    names = [str(part).strip() for part in (parts if isinstance(parts, list | tuple) else [parts])]
    if len(names) < 2 or not all(names) or len(set(names)) < len(names):
        raise ValueError(f"--class_names are {', '.join(names)}: expected two or more that differ.")
    return names


def files_of(folder: Path, item: dict[str, Any]) -> list[Path]:
    """List the files that may be the label map of a slice."""
    stem = Path(item["image"]).stem
    return [file for suffix in SUFFIXES if (file := folder / "labels" / f"{stem}{suffix}").is_file()]


def read_window(window: Any) -> tuple[float, float]:
    """Read the HU of black and of white, as ``-1000,600`` or two numbers say them.

    Raises:
        ValueError: they are no two numbers that rise.
    """
    parts = window.split(",") if isinstance(window, str) else window
    try:
        low, high = (float(part) for part in parts)
    except (TypeError, ValueError):
        low = high = 0.0
    if not low < high:
        raise ValueError(f"--window_hu is {window}: expected two numbers that rise, such as -1000,600")
    return low, high


def _draw(folder: Path, items: list[dict[str, Any]], names: list[str], window: tuple[float, float]) -> str:
    """Label the slices by HU; returns what the labeller calls itself."""
    import numpy as np
    from PIL import Image

    from clinbundles.engines.outputs.files import replacing
    from clinbundles.transforms.hu_labels import LABELLER, NAMES, label_slice
    from clinbundles.transforms.readers.slices import read_grey

    if names not in (list(NAMES), list(NAMES[:-1])):
        raise ValueError(
            f"--class_names are {', '.join(names)}: automatic labels are {', '.join(NAMES)}, or all but the last."
        )
    low, high = window
    counts: Counter[str] = Counter()
    for item in items:
        values = read_grey(folder / item["image"]).astype(np.float32)
        classes = label_slice(low + values / 255 * (high - low), trachea="trachea" in names)
        counts.update(names[number] for number in np.unique(classes))
        item["label"] = f"labels/{Path(item['image']).stem}.png"
        with replacing(folder / item["label"]) as partial:
            Image.fromarray(classes).save(partial, format="PNG")
    shares = ", ".join(f"{name} in {counts[name]}" for name in names[1:])
    print(f"of {len(items)} slices {shares}; look at them: thresholds miss a lung whose wall is thin in the picture")
    return LABELLER


def _collect(folder: Path, items: list[dict[str, Any]], names: list[str]) -> None:
    """Find and check the files of the slices.

    Raises:
        FileNotFoundError: a slice has none.
        ValueError: one has another size or a value that is no class, or all are empty.
    """
    from clinbundles.transforms.readers.slices import read_grey, read_label_map

    missing, empty = [], []
    for item in items:
        stem = Path(item["image"]).stem
        files = files_of(folder, item)
        if not files:
            missing.append(stem)
            continue
        if len(files) > 1:
            raise ValueError(f"{folder / 'labels'}: {files[0].name} and {files[1].name} are both of the slice {stem}.")
        values, image = read_label_map(files[0], names), read_grey(folder / item["image"])
        if values.shape != image.shape:
            sizes = f"{values.shape[1]}x{values.shape[0]} px, its slice {image.shape[1]}x{image.shape[0]}"
            raise ValueError(f"{files[0]}: is {sizes}.")
        if not values.any():
            empty.append(stem)
        item["label"] = f"labels/{files[0].name}"
    if missing:
        raise FileNotFoundError(
            f"{folder / 'labels'}: {len(missing)} of {len(items)} slices have no label map, the first is {missing[0]}; "
            f"expected {missing[0]}.png."
        )
    if len(empty) == len(items):
        raise ValueError(f"{folder / 'labels'}: all {len(items)} label maps hold background alone.")
    stems = {Path(item["image"]).stem for item in items}
    if others := sorted(file.name for file in (folder / "labels").iterdir() if file.stem not in stems):
        print(f"{len(others)} files in {folder / 'labels'} are of no slice of the list: {', '.join(others[:5])}")
    if empty:
        print(f"{len(empty)} label maps hold background alone: {', '.join(empty[:5])}")
