"""``clinbundles simulate-gaze``: simulated gaze on the training items of a datalist, drawn from their masks."""

from __future__ import annotations

import csv as csv_format
import hashlib
import io
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clinbundles.engines.outputs.files import write_atomically
from clinbundles.scripts.bars import watch
from clinbundles.scripts.prepare.datalist import SPLITS, check_output, datalist_as_json
from clinbundles.scripts.prepare.gaze import drop_simulated, is_simulated, read_datalist
from clinbundles.scripts.prepare.original_sizes import say_sizes, sizes_in_boxes
from clinbundles.transforms.gaze.simulator import simulate_fixations
from clinbundles.transforms.readers.folder import image_stem
from clinbundles.transforms.readers.masks import read_mask

SACCADE_MS = 40.0
CSV_COLUMNS = (
    "IMAGE",
    "CURRENT_FIX_INDEX",
    "CURRENT_FIX_X",
    "CURRENT_FIX_Y",
    "CURRENT_FIX_DURATION",
    "CURRENT_FIX_PUPIL",
    "CURRENT_FIX_START",
    "IMAGE_HEIGHT",
    "IMAGE_WIDTH",
    "GAZE_SOURCE",
)


def simulate_gaze(
    datalist: str,
    *,
    profile: Literal["expert", "webcam"] = "expert",
    observers: int = 1,
    seed: int = 0,
    oracle: bool = False,
    replace: bool = False,
    dataset_dir: str | None = None,
    output: str | None = None,
    csv: str | None = None,
) -> None:
    """Add simulated fixations to a datalist, drawn from the ground-truth masks.

    Training items get them; validation and test items do not, and lose what an earlier run gave them, unless --oracle
    asks for it, and then the datalist says so.

    Args:
        datalist: JSON file with training, validation and test lists of {"image", "label"}.
        profile: expert or webcam.
        observers: how many viewers look at each image.
        seed: the gaze of an image depends on this and on the image's file name, not on its place in the list.
        oracle: also give gaze to validation and test items, marked as an oracle.
        replace: overwrite recorded gaze.
        dataset_dir: folder that the paths of the datalist start from; the datalist's own by default.
        output: where the new datalist goes, its paths unchanged; in place of the old one by default.
        csv: also write the fixations as a table in the columns of GazeMedSeg, one file for each observer.
    """
    if observers < 1:
        raise ValueError(f"--observers is {observers}: expected a whole number of at least 1")
    source = Path(datalist)
    target = check_output(source if output is None else output)
    table = None if csv is None else check_output(csv, flag="csv")
    content = read_datalist(source)
    splits = [name for name in SPLITS if content.get(name)] if oracle else ["training"]
    if not all(content.get(name) for name in splits):
        raise ValueError(f"datalist {source} has no items under 'training': --oracle gives gaze to its other items")
    _refuse_recorded(content, splits, replace=replace)
    folder = source.parent if dataset_dir is None else Path(dataset_dir)

    n_earlier = drop_simulated(content)
    rows: list[list[list[Any]]] = [[] for _ in range(observers)]
    sizes = cache(sizes_in_boxes)
    items = [(split, item) for split in splits for item in content[split]]
    for split, item in watch(items, desc="simulating gaze", unit="image"):
        mask = _read_mask(item, folder)
        kind = "simulated" if split == "training" else "simulated-oracle"
        item["gaze_source"] = f"{kind}:{profile}:seed={seed}"
        item["fixations"] = [_fixations(mask, item["image"], profile, seed, number) for number in range(observers)]
        item |= _original_size(item, folder, sizes)
        for number, fixations in enumerate(item["fixations"]):
            rows[number] += _table_rows(item, fixations, item.get("original_size", mask.shape))
    content["gaze"] = {"source": "simulated", "profile": profile, "seed": seed, "sections": splits}
    if oracle:
        content["oracle"] = True

    if table is not None:
        for number, path in enumerate(_table_paths(table, observers)):
            _write_table(path, rows[number])
    write_atomically(target, datalist_as_json(content))
    if sentence := say_sizes(item for _, item in items):
        print(sentence)
    others = sum(len(content.get(name, [])) for name in SPLITS) - len(items)
    print(f"earlier simulated gaze of {n_earlier} images dropped; {others} images of other splits get none")
    print(f"simulated {profile} gaze (seed {seed}) on {len(items)} images of {', '.join(splits)}: {target}")


def _refuse_recorded(content: dict[str, Any], splits: list[str], *, replace: bool) -> None:
    recordings = [item for name in splits for item in content[name] if item.get("fixations") and not is_simulated(item)]
    if recordings and not replace:
        raise ValueError(
            f"{len(recordings)} items carry recorded gaze, the first is {recordings[0]['image']} "
            f"(gaze_source {recordings[0].get('gaze_source')!r}): --replace overwrites it with simulated gaze"
        )


def _read_mask(item: dict[str, Any], folder: Path) -> np.ndarray:
    if not item.get("label"):
        raise ValueError(f"{item['image']} has no label to simulate gaze from")
    path = folder / item["label"]
    if not path.is_file():
        raise FileNotFoundError(f"label {path} of {item['image']} does not exist")
    return read_mask(path)


def _fixations(mask: np.ndarray, image: str, profile: str, seed: int, observer: int) -> list[list[float]]:
    digest = hashlib.sha256(f"{seed}/{observer}/{Path(image).name}".encode()).digest()
    rng = np.random.RandomState(np.frombuffer(digest, dtype=np.uint32))
    return [
        [round(x, 5), round(y, 5), round(duration, 1)]
        for x, y, duration in simulate_fixations(mask, profile=profile, rng=rng).tolist()
    ]


def _original_size(
    item: dict[str, Any], folder: Path, sizes: Callable[[Path], dict[str, tuple[int, int]]]
) -> dict[str, list[int]]:
    """Entry with the original size of an image, where the list of boxes of its data set tells and the item does not."""
    path = folder / item["image"]
    size = None if item.get("original_size") else sizes(path.parent.parent).get(image_stem(path))
    return {"original_size": list(size)} if size else {}


def _table_rows(item: dict[str, Any], fixations: list[list[float]], size: Sequence[int]) -> list[list[Any]]:
    rows, start = [], 0.0
    for index, (x, y, duration) in enumerate(fixations, start=1):
        name = Path(item["image"]).name
        rows.append([name, index, x, y, duration, "", round(start, 1), *size, item["gaze_source"]])
        start += duration + SACCADE_MS
    return rows


def _table_paths(path: Path, observers: int) -> list[Path]:
    if observers == 1:
        return [path]
    return [path.with_stem(f"{path.stem}_observer{number}") for number in range(1, observers + 1)]


def _write_table(path: Path, rows: list[list[Any]]) -> None:
    firsts = [row[0] for row in rows if row[1] == 1]
    if len(set(firsts)) < len(firsts):
        twice = next(name for name in firsts if firsts.count(name) > 1)
        raise ValueError(f"--csv names images by file name, and {twice} occurs more than once in the datalist")
    table = io.StringIO()
    csv_format.writer(table, lineterminator="\n").writerows([CSV_COLUMNS, *rows])
    write_atomically(path, table.getvalue())
