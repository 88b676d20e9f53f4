"""``clinbundles score triage``: which generated pairs of image and label map are good, partly good and bad.

    clinbundles score triage --generated DIR --judge automatic

A generated image has no reference, so that a judge that is named draws one. Writes triage.csv, triage.json and
triage.png.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clinbundles.engines.metrics.classification import class_auc
from clinbundles.engines.metrics.intervals import FEWEST_GROUPS, draw_groups, interval, share_interval, with_interval
from clinbundles.engines.outputs.files import replacing, write_atomically, write_csv_atomically
from clinbundles.scripts.bars import watch
from clinbundles.scripts.generated_images import ImageList, read_generated
from clinbundles.transforms.readers.slices import read_grey, read_label_map

from .triage_judges import Judge, automatic_judge, folder_judge, window_of
from .triage_report import draw_triage, say

GOOD, BAD = 0.01, 0.25  # at most and at least this share of the pixels is wrong; between them a pair is partly good
# Of 100 pairs that people judged. Source: Fan, Semi-Supervised Medical Imaging Segmentation Using DatasetGAN.
PAPER = {"good": 0.74, "partial": 0.11, "bad": 0.15}
N_DECILES = 10
COPIED = (
    "generator_sha256", "interpreter_sha256", "truncation", "truncated_layers", "labeller", "dropped_as_uncertain",
)  # fmt: skip


def triage(
    *,
    generated: str,
    judge: str,
    window_hu: Any = None,
    judge_weights: str | None = None,
    output_dir: str | None = None,
) -> None:
    """Sort generated pairs into good, partial and bad by their share of wrong pixels; write a table and a picture.

    Good has at most 1 % wrong pixels, bad 25 % or more. Wrong is what the judge labels otherwise: thresholds of HU,
    for chest CT alone, or a segmenter. Writes triage.csv, triage.json and triage.png.

    Args:
        generated: folder with datalist.json, images and labels, as generate writes it.
        judge: automatic, or the folder that an inference of a segmenter on the images of the set wrote.
        window_hu: HU of black and of white, for automatic; those of the datalist if not given.
        judge_weights: weights of the segmenter, whose digest the results then name.
        output_dir: where the results go; the folder triage in that of the generated images if not given.
    """
    made = read_generated(generated)
    content = json.loads(made.source.read_text(encoding="utf-8"))
    names = class_names_of(made, content)
    check_items(made)
    if judge != "automatic":
        if window_hu is not None:
            raise ValueError("--window_hu is of --judge automatic: label maps of a segmenter need none.")
        referee = folder_judge(Path(judge), made, names, weights=judge_weights)
    elif judge_weights is not None:
        raise ValueError("--judge_weights is of a segmenter, and --judge is automatic, which has none.")
    else:
        referee = automatic_judge(made, names, window_of(made, content, window_hu))
    rows = measure(made, names, referee)
    dropped = int(content.get("dropped_as_uncertain") or 0)
    summary: dict[str, Any] = {
        "set": {name: content.get(name) for name in COPIED} | {"labels": names},
        "judge": {"name": referee.name, **referee.facts},
        "pairs": {"came_in": len(rows) + dropped, "judged": len(rows), "left_out_as_uncertain": dropped},
        "pixels": read_grey(made.root / made.items[0]["label"], as_stored=True).size,
        **summarize(rows),
    }
    summary["remarks"] = [referee.caution, *remarks(summary)]
    output = Path(output_dir) if output_dir else Path(generated) / "triage"
    output.mkdir(parents=True, exist_ok=True)
    columns = ("image", "wrong_share", "verdict", "uncertainty")
    write_csv_atomically(output / "triage.csv", [{key: row[key] for key in columns} for row in rows])
    write_atomically(output / "triage.json", json.dumps(summary, indent=4) + "\n")
    with replacing(output / "triage.png") as partial:
        draw_triage(rows, made, names, referee.draw, summary).savefig(partial, format="png", dpi=110)
    print(say(summary))
    print(f"triage.csv, triage.json and triage.png: {output}")


def class_names_of(made: ImageList, content: dict[str, Any]) -> list[str]:
    """Names of the classes of a generated set, the background first.

    Raises:
        ValueError: the datalist does not name them.
    """
    labels = content.get("labels")
    if not isinstance(labels, dict) or sorted(labels) != sorted(str(k) for k in range(len(labels))) or not labels:
        raise ValueError(f"{made.source}: its labels are {labels!r}, expected the names of the classes from 0 on.")
    return [str(labels[str(k)]) for k in range(len(labels))]


def check_items(made: ImageList) -> None:
    """Refuse a set without label maps or without uncertainties.

    Raises:
        ValueError: an item lacks one of them.
    """
    for item in made.items:
        if not isinstance(item.get("label"), str):
            raise ValueError(f"{made.source}: {item['image']} has no label: generate it with interpreter_weights.")
        value = item.get("uncertainty")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(
                f"{made.source}: {item['image']} has the uncertainty {value!r}, expected a number: generate writes it "
                "with interpreter_weights."
            )


def measure(made: ImageList, names: Sequence[str], judge: Judge) -> list[dict[str, Any]]:
    """Compare the label map of each image with the judge's.

    Returns:
        a row an image: image, label, wrong_share of all pixels with the background, verdict, uncertainty.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a label map has another size than its image, or a value that is no class.
    """
    rows = []
    first = made.read(0, 1)[0]
    for number, item in enumerate(watch(made.items, desc="judging", unit="pair")):
        shape = made.read(number, number + 1, like=first).shape[-2:]
        path = made.root / item["label"]
        labels, reference = read_label_map(path, names), judge.draw(made.root / item["image"])
        for source, values in ((str(path), labels), (f"the judge's label map of {item['image']}", reference)):
            if values.shape != shape:
                raise ValueError(
                    f"{source}: is {values.shape[1]}x{values.shape[0]} px, its image {shape[1]}x{shape[0]} px."
                )
        share = int((labels != reference).sum()) / labels.size
        row = {"image": item["image"], "label": item["label"], "wrong_share": round(share, 6)}
        rows.append({**row, "verdict": verdict_of(share), "uncertainty": item["uncertainty"]})
    return rows


def verdict_of(wrong_share: float) -> str:
    """Call a pair good, partial or bad by its share of wrong pixels."""
    return "good" if wrong_share <= GOOD else "bad" if wrong_share >= BAD else "partial"


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Count the verdicts, all together and by decile of uncertainty, and ask whether the uncertainty knows them.

    Args:
        rows: as :func:`measure` gives them.

    Returns:
        verdicts (count, share with the interval of Wilson, paper), deciles (None for fewer than ten
        pairs) and auroc of the uncertainty for bad pairs, and for those that are not good.
    """
    verdicts = np.array([row["verdict"] for row in rows])
    uncertainty = np.array([row["uncertainty"] for row in rows], dtype=float)
    counts = {}
    for name, paper in PAPER.items():
        count = int((verdicts == name).sum())
        share = with_interval(count / len(rows), share_interval(count, len(rows)))
        counts[name] = {"count": count, "share": share, "paper": paper}
    deciles = None
    if len(rows) >= N_DECILES:
        parts = np.array_split(np.argsort(uncertainty, kind="stable"), N_DECILES)
        deciles = [
            {"pairs": len(part), "from": uncertainty[part[0]], "to": uncertainty[part[-1]]}
            | {name: int((verdicts[part] == name).sum()) for name in PAPER}
            for part in parts
        ]
    areas = {"bad": area(uncertainty, verdicts == "bad"), "not good": area(uncertainty, verdicts != "good")}
    return {"limits": {"good": GOOD, "bad": BAD}, "verdicts": counts, "deciles": deciles, "auroc": areas}


def area(uncertainty: np.ndarray, positive: np.ndarray) -> dict[str, Any]:
    """Find how often a pair of one kind is more uncertain than one of the other (AUROC), resampling pairs.

    Args:
        uncertainty: (N,).
        positive: bool (N,), the pairs that should be more uncertain.

    Returns:
        value, None where one kind is missing, low and high, None for fewer than ten pairs of either kind, and the
        numbers of both.
    """
    kinds, scores = (~positive).astype(int), uncertainty[:, None]
    value, ends = class_auc(kinds, scores)[0], np.full(2, np.nan)
    counts = int(positive.sum()), int((~positive).sum())
    if min(counts) >= FEWEST_GROUPS:
        blocks = np.array_split(draw_groups(len(kinds)), N_DECILES)
        ends = interval(np.concatenate([class_auc(kinds, scores, block)[:, 0] for block in blocks]))
        if value in (0, 1):  # and so is every resample
            ends = share_interval(int(value) * min(counts), min(counts))
    return {**with_interval(value, ends), "pairs": counts[0], "others": counts[1]}


def remarks(summary: dict[str, Any]) -> list[str]:
    """Say what is missing in a summary, and what makes it weaker."""
    lines = [f"{GOOD:.0%} of the pixels are {GOOD * summary['pixels']:.0f} of {summary['pixels']}"]
    if summary["pairs"]["left_out_as_uncertain"]:
        lines.append("the most uncertain pairs were left out before, so that the AUROC is of the others alone")
    if summary["deciles"] is None:
        lines.append(f"{summary['pairs']['judged']} pairs are too few for deciles of uncertainty")
    for name, each in summary["auroc"].items():
        if each["value"] is None:
            kind = f"no pair is {name}" if not each["pairs"] else f"all pairs are {name}"
            lines.append(f"{kind}, so that there is no AUROC for it")
        elif each["low"] is None:
            fewest = min(each["pairs"], each["others"])
            lines.append(f"the AUROC for {name} pairs has no interval, as it rests on {fewest} of one kind")
    return lines
