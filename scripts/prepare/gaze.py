"""Recorded gaze in a datalist: read from files, one for each observer, and laid on the images it was recorded on."""

from __future__ import annotations

import glob
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clinbundles.engines.outputs.files import write_atomically

from .datalist import SPLITS, check_output, datalist_as_json, items_of


@dataclass(frozen=True)
class Recording:
    """The gaze of one observer.

    Args:
        path: file that it is read from.
        fixations: x, y and duration (n, 3) by the file name of the image.
    """

    path: Path
    fixations: Mapping[str, np.ndarray]


def add_gaze(
    datalist: str, gaze: str, *, gaze_format: str = "auto", replace: bool = False, output: str | None = None
) -> None:
    """Add recorded gaze to the items of a datalist, in all its splits.

    Simulated gaze is dropped everywhere, so that one datalist never mixes the two.

    Args:
        datalist: JSON file of `clinbundles prepare`.
        gaze: recorded gaze: a file, or a glob of files, one for each observer.
        gaze_format: format of the recordings; auto takes it from their header.
        replace: drop the recorded gaze that is there.
        output: where the new datalist goes; in place of the old one by default.
    """
    source = Path(datalist)
    target = check_output(source if output is None else output)
    content = read_datalist(source)
    items = items_of(content)
    older = [item for item in items if item.get("fixations") and not is_simulated(item)]
    if older and not replace:
        raise ValueError(
            f"datalist {source}: {len(older)} items carry recorded gaze, the first is {older[0]['image']}: "
            "--replace drops it for the new one"
        )
    recordings = read_recordings(gaze, gaze_format=gaze_format)
    check_recordings(recordings, [Path(item["image"]).name for item in items])
    n_simulated = drop_simulated(content)
    for item in older:
        item.pop("fixations")
        item.pop("gaze_source", None)
    for item in items:
        item |= recorded_gaze(item["image"], recordings)
    content.pop("gaze", None)
    splits = {name: content.pop(name) for name in SPLITS if name in content}
    write_atomically(target, datalist_as_json({**content, "gaze": gaze_facts(recordings), **splits}))
    print(f"simulated gaze of {n_simulated} images dropped, recorded gaze of {len(older)} images replaced")
    print(f"{say_gaze(items, recordings)}; wrote {target}")


def read_recordings(pattern: str | None, *, gaze_format: str) -> tuple[Recording, ...]:
    """Read the file, or the files that a glob finds, one for each observer; none at all where ``pattern`` is None."""
    from clinbundles.transforms.gaze.readers import read_fixations

    if pattern is None:
        return ()
    paths = [Path(pattern)] if Path(pattern).is_file() else [Path(p) for p in sorted(glob.glob(pattern))]
    if not paths:
        raise FileNotFoundError(f"gaze {pattern}: no such file")
    for path in paths:
        refuse_simulated(path)
    return tuple(Recording(path, read_fixations(path, gaze_format=gaze_format)) for path in paths)


def refuse_simulated(path: Path) -> None:
    """Refuse the table of gaze that ``clinbundles simulate-gaze --csv`` wrote: nobody looked there.

    Raises:
        ValueError: its column GAZE_SOURCE says so.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        header, first = (file.readline().strip().split(",") for _ in range(2))
    if "GAZE_SOURCE" in header and "simulated" in ",".join(first):
        raise ValueError(
            f"{path}: simulated gaze (column GAZE_SOURCE), not recorded: give the datalist that clinbundles "
            "simulate-gaze wrote, which says so."
        )


def check_recordings(recordings: Sequence[Recording], images: Sequence[str]) -> None:
    """Refuse gaze on images that are not there, and images that gaze cannot tell apart.

    Args:
        recordings: the gaze.
        images: file names of the images of the data set.
    """
    repeated = [name for name, count in Counter(images).items() if count > 1]
    if repeated and recordings:
        raise ValueError(f"--gaze names images by file name, and {repeated[0]} occurs more than once")
    for recording in recordings:
        strangers = sorted(recording.fixations.keys() - set(images))
        if strangers:
            raise ValueError(
                f"{recording.path}: gaze on {len(strangers)} images that are not there, the first is {strangers[0]}"
            )


def recorded_gaze(image: str, recordings: Sequence[Recording]) -> dict[str, Any]:
    """Entries of an image's item in the datalist; observers who did not see the image leave nothing in it."""
    name = Path(image).name
    views = [recording.fixations[name] for recording in recordings if name in recording.fixations]
    if not views:
        return {}
    fixations = [[[round(x, 5), round(y, 5), round(duration, 1)] for x, y, duration in rows.tolist()] for rows in views]
    return {"fixations": fixations, "gaze_source": "recorded"}


def gaze_facts(recordings: Sequence[Recording]) -> dict[str, Any]:
    """What a datalist says about the recordings in it: their files with hashes."""
    hashes = {recording.path.name: hashlib.sha256(recording.path.read_bytes()).hexdigest() for recording in recordings}
    return {"source": "recorded", "files": hashes}


def say_gaze(items: Sequence[Mapping[str, Any]], recordings: Sequence[Recording]) -> str:
    """Sentence about how many of the items have gaze."""
    without = sum("fixations" not in item for item in items)
    return f"recorded gaze of {len(recordings)} observers; {without} of {len(items)} images have none"


def read_datalist(path: Path) -> dict[str, Any]:
    """Read a datalist whose items have at least an image.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no datalist.
    """
    if not path.is_file():
        raise FileNotFoundError(f"datalist {path} does not exist")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"datalist {path} is not JSON: {error}") from error
    if not isinstance(content, dict) or not any(content.get(split) for split in SPLITS):
        raise ValueError(f"datalist {path} has no items under {', '.join(map(repr, SPLITS))}")
    for split in SPLITS:
        for number, item in enumerate(content.get(split, [])):
            if not isinstance(item, dict) or "image" not in item:
                raise ValueError(f"datalist {path}: item {number} of {split!r} has no 'image'")
    return content


def is_simulated(item: Mapping[str, Any]) -> bool:
    """Whether the gaze of an item is simulated."""
    return str(item.get("gaze_source", "")).startswith("simulated")


def drop_simulated(content: dict[str, Any]) -> int:
    """Forget the simulated gaze of an earlier run, so that an oracle does not outlive its flag; count the items."""
    content.pop("oracle", None)
    items = [item for item in items_of(content) if is_simulated(item)]
    for item in items:
        item.pop("fixations", None)
        item.pop("gaze_source")
    return len(items)
