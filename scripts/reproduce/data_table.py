"""What a grid's data sets are made of, beside what the paper says: images, resolution, share of foreground."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clinbundles.engines.outputs.files import write_atomically
from clinbundles.scripts.option_values import check_datalist
from clinbundles.scripts.prepare.datalist import items_of
from clinbundles.transforms.readers.images import BinaryMaskReader

FACTS = ("images", "height", "width", "image_size", "foreground")


def describe_data(datalist: str | Path, dataset_dir: str | Path) -> dict[str, float]:
    """Count the items of a datalist, whatever their split, and read the size and foreground of their masks.

    Args:
        datalist: JSON file with training, validation and test lists of {"image", "label"}.
        dataset_dir: folder that its paths start from.

    Returns:
        images; height and width, mean over the images in px; foreground, mean over the images of the share of a mask's
        pixels, in %.

    Raises:
        FileNotFoundError, ValueError: there is no such file or no item in it, or a mask cannot be read.
    """
    check_datalist(str(datalist))
    items = items_of(json.loads(Path(datalist).read_text(encoding="utf-8")))
    if not items:
        raise ValueError(f"{datalist}: has no items.")
    reader = BinaryMaskReader()
    masks = [reader.read(str(Path(dataset_dir) / item["label"])) for item in items]
    return {
        "images": len(items),
        "height": float(np.mean([mask.shape[0] for mask in masks])),
        "width": float(np.mean([mask.shape[1] for mask in masks])),
        "foreground": 100 * float(np.mean([mask.mean() for mask in masks])),
    }


def write_data_table(
    plan: Mapping[str, Any], number: str, rows: Mapping[str, Mapping[str, Any]], samples: Path, output: Path
) -> list[Path]:
    """Write data.md and data.csv, a line a row of the grid, and return their paths.

    Args:
        plan: the content of reproduce.json, whose ``data_tables`` have by number and row what was published: images,
            height, width, side that they are resized to and foreground.
        number: of the table.
        rows: with their knobs, as :func:`.plan.give_data` returns them.
        samples: folder of the bundle's samples, for a row that is given no data.
        output: folder.
    """
    published, lines = plan["data_tables"][number]["published"], []
    row_name = next(iter(plan["rows"]))
    for row, entry in rows.items():
        knobs = entry["knobs"]
        dataset_dir = Path(knobs.get("dataset_dir") or samples)
        found = describe_data(knobs.get("datalist") or dataset_dir / "datalist.json", dataset_dir)
        found["image_size"] = knobs["image_size"]
        of_paper = dict(zip(FACTS, published[row], strict=True)) if row in published else {}
        lines.append({row_name: row, **found, **{f"published_{name}": value for name, value in of_paper.items()}})
    table = pd.DataFrame(lines)
    heads = ["images", "mean size (height × width)", "image_size", "foreground in %"]
    text = ["| " + " | ".join([row_name, *(f"{head} ({who})" for head in heads for who in ("paper", "here"))]) + " |"]
    text.append("|---" * (1 + 2 * len(heads)) + "|")
    for line in lines:
        cells = [line[row_name]]
        for names in (FACTS[:1], FACTS[1:3], FACTS[3:4], FACTS[4:]):
            cells += [_as_text([line.get(who + name) for name in names]) for who in ("published_", "")]
        text.append("| " + " | ".join(cells) + " |")
    text += ["", f"Table {number} of the paper. Means over all images, whatever their split; masks as they are read."]
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / "data.md", "\n".join(text) + "\n")
    write_atomically(output / "data.csv", table.to_csv(index=False))
    return [output / "data.md", output / "data.csv"]


def _as_text(values: Sequence[float | None]) -> str:
    if None in values:
        return "–"
    return " × ".join(f"{value:.1f}".removesuffix(".0") for value in values if value is not None)
