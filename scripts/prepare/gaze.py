"""Recorded gaze in a datalist that is there already, and what must go for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clinbundles.engines.outputs.files import write_atomically

from .datalist import SPLITS, check_output, datalist_as_json, items_of
from .original_sizes import join_size, say_sizes
from .recordings import gaze_facts, gaze_files, recorded_gaze, say_gaze, say_other_reading


def add_gaze(datalist: str, gaze: str, *, replace: bool = False, output: str | None = None, **reading: Any) -> None:
    """Add recorded gaze to the items of a datalist, in all its splits.

    Simulated gaze is dropped everywhere, so that one datalist never mixes the two.

    Args:
        datalist: JSON file of `clinbundles prepare`.
        gaze: recorded gaze: a file, or a glob of files, one for each observer.
        replace: drop the recorded gaze that is there.
        output: where the new datalist goes; in place of the old one by default.
        reading: how to read the files, see :func:`clinbundles.scripts.prepare.recordings.gaze_files`.
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
    files = gaze_files(gaze, **reading)
    assert files is not None
    recordings = files.read([Path(item["image"]).name for item in items])
    n_simulated = drop_simulated(content)
    for item in older:
        item.pop("fixations")
        item.pop("gaze_source", None)
    for item in items:
        item |= join_size(item, recorded_gaze(item["image"], recordings))
    before, facts = content.pop("gaze", None) or {}, gaze_facts(files, recordings)
    splits = {name: content.pop(name) for name in SPLITS if name in content}
    write_atomically(target, datalist_as_json({**content, "gaze": facts, **splits}))
    print(f"simulated gaze of {n_simulated} images dropped, recorded gaze of {len(older)} images replaced")
    if before.get("source") == "recorded" and (sentence := say_other_reading(before, facts)):
        print(sentence)
    if sentence := say_sizes(items):
        print(sentence)
    print(f"{say_gaze(items, recordings)}; wrote {target}")


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
    except (ValueError, RecursionError) as error:
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
