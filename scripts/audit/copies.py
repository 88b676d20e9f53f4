"""Which generated images are copies of training images? An audit with a control, before a generator is handed on.

    clinbundles audit copies --generated DIR --training DATALIST --dataset_dir DIR

Writes copies.csv, summary.json and copies.png.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clinbundles.engines.metrics.copies import (
    BLOCK,
    Distance,
    FeatureDistance,
    PixelDistance,
    Reference,
    nearest,
    neighbours,
    number_patients,
    reference,
)
from clinbundles.engines.metrics.intervals import mean_interval, share_interval, with_interval
from clinbundles.engines.metrics.planted_copies import DEGRADATIONS, plant
from clinbundles.engines.outputs.files import replacing, write_atomically, write_csv_atomically
from clinbundles.nets.feature_extractor import feature_extractor, features_of
from clinbundles.scripts.bars import watch
from clinbundles.scripts.generated_images import SPLITS, ImageList, has_split, read_generated, read_list

from .copies_report import N_PLANTED, draw_pairs, order_closest, say, say_failure, similarity

GATE, GATE_IMAGES = 0.01, 1000  # the share of copies that is let through, and of how many images
CANDIDATES = 5  # nearest training images by pixels, of which the most similar one is found
QUANTILES = (0.0, 0.01, 0.05, 0.5, 0.95, 1.0)


def audit_copies(
    *,
    generated: str,
    training: str,
    dataset_dir: str | None = None,
    split: str = "training",
    held_out: str = "test",
    feature_weights: str | None = None,
    features: str = "MobileNetV2",
    output_dir: str | None = None,
    drop_copies: bool = False,
    seed: int = 0,
) -> None:
    """Find the generated images that are copies of training images; write copies.csv, summary.json and copies.png.

    A copy is nearer to some training image, flipped, turned, shifted and blurred, than the 5 % quantile of slices of
    one patient that are neighbours 10 to 20 mm apart, and than half the 5 % quantile of the training images' distances
    to the nearest one of another patient; the second alone where the datalist has no slices with group and position in
    mm. At most 1 % of 1,000 may be copies. Ten planted copies of each kind have to be found, among them noised and
    blurred ones, else the gate is not passed.

    Args:
        generated: folder with datalist.json and images, as generate writes it.
        training: JSON datalist of the images that the generator was trained on.
        dataset_dir: folder that its paths start from; that of the datalist if not given.
        split: the split that was trained on.
        held_out: a split of other patients, which is measured beside and decides nothing; left out if there is none.
        feature_weights: weights of a feature extractor, of clinbundles convert-weights; features are left out without.
        features: MobileNetV2, or Inception: a TorchScript file, and opening it runs the code in it.
        output_dir: where the results go; the folder copies in that of the generated images if not given.
        drop_copies: write datalist_without_copies.json beside the datalist of the generated images.
        seed: of the planted copies.
    """
    made, real = read_generated(generated), read_list(training, dataset_dir, split=split)
    if len(real.items) < N_PLANTED + 1:
        raise ValueError(f"{training}: {len(real.items)} images in {split}, expected more than {N_PLANTED}.")
    images = real.read()
    made.read(0, 1, like=images[0])  # refused before anything is computed
    others = read_list(training, dataset_dir, split=held_out) if has_split(training, held_out) else None
    # Pixels decide first. MobileNetV2's features find next to none of the planted copies: a shift or noise moves them
    # further than a millimetre of anatomy does.
    distances: list[Distance] = [PixelDistance(images)]
    if feature_weights is not None:
        extractor = feature_extractor(feature_weights, name=features)
        print(f"computing {extractor.name} features of {len(images)} training images in 8 orientations", flush=True)
        distances.append(FeatureDistance(images, partial(features_of, extractor), name=str(extractor.name)))
    pairs = neighbours(real.items)
    patients = number_patients(real.items)
    references = {each.name: reference(each, images, pairs, patients) for each in distances}
    control = {each.name: check_control(each, images, references[each.name], seed=seed) for each in distances}
    verdict = next((each.name for each in distances if not control[each.name]["missed"]), None)
    rows = measure(made, images, real.names, distances, desc="generated")
    rows_of_others = measure(others, images, real.names, distances, desc=held_out) if others is not None else []
    of_others = number_patients(others.items) if others is not None else np.empty(0)
    for row in rows:
        row["copy"] = verdict is not None and row[f"{verdict}_distance"] < references[verdict].threshold
    summary: dict[str, Any] = {
        "generated": len(made.items),
        "training": len(images),
        "held_out": len(rows_of_others),
        "planted": N_PLANTED,
        "verdict_by": verdict,
        "distances": {
            name: describe(name, ref, control[name], rows, rows_of_others, of_others)
            for name, ref in references.items()
        },
        "ssim": {"generated": _quantiles(rows, "ssim"), "held_out": _quantiles(rows_of_others, "ssim")},
        "seed": seed,
    }
    summary |= judge([row["copy"] for row in rows]) if verdict else {"passed": False, "reason": say_failure(control)}
    output = Path(output_dir) if output_dir else Path(generated) / "copies"
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / "summary.json", json.dumps(summary, indent=4) + "\n")
    if verdict is None:
        for name in ("copies.csv", "copies.png"):  # of an earlier audit
            (output / name).unlink(missing_ok=True)
        raise ValueError(f"The gate of {GATE:.0%} is not passed: {summary['reason']} See {output / 'summary.json'}.")
    write_csv_atomically(output / "copies.csv", [_as_text(row) for row in rows])
    with replacing(output / "copies.png") as file:
        draw_pairs(order_closest(rows, verdict), made, images, real.names, verdict).savefig(file, format="png", dpi=110)
    print(say(summary))
    print(f"copies.csv, summary.json and copies.png: {output}")
    if drop_copies:
        drop(made, rows)


def check_control(distance: Distance, training: torch.Tensor, ref: Reference, *, seed: int) -> dict[str, Any]:
    """Plant copies in every kind of degradation, and count how many a distance finds.

    Returns:
        missed, the required kinds of which not all are found; and by_degradation, of each: found and named (with the
        right original) of ten; auroc: how often a planted copy is nearer than what the threshold rests on; largest
        distance; required.
    """
    results: dict[str, dict[str, Any]] = {}
    for kind in DEGRADATIONS:
        copies, originals = plant(training, kind, count=N_PLANTED, seed=seed)
        result = nearest(distance, copies)
        values = result.distances[:, 0].numpy()
        results[kind.words] = {
            "found": int((values < ref.threshold).sum()),
            "named": int((result.indices[:, 0] == torch.tensor(originals)).sum()),
            "auroc": float((values[:, None] < ref.distances).mean() + (values[:, None] == ref.distances).mean() / 2),
            "largest": float(values.max()),
            "required": kind.required,
        }
    missed = [words for words, each in results.items() if each["required"] and each["found"] < N_PLANTED]
    return {"missed": missed, "by_degradation": results}


def measure(
    listed: ImageList, training: torch.Tensor, names: list[str], distances: list[Distance], *, desc: str
) -> list[dict[str, Any]]:
    """Find the nearest training image of every image of a list, by each distance and by SSIM.

    Returns:
        a row an image: image; <distance>_distance and <distance>_training for each; place, of the pixels; ssim and
        ssim_training, the most similar of the five nearest by pixels; index, of the nearest by each distance.
    """
    rows: list[dict[str, Any]] = []
    for start in watch(range(0, len(listed.items), BLOCK), desc=desc, unit="block"):
        images = listed.read(start, start + BLOCK, like=training[0])
        block: list[dict[str, Any]] = [{"image": name} for name in listed.names[start : start + BLOCK]]
        for distance in distances:
            result = nearest(distance, images, k=CANDIDATES)
            for number, row in enumerate(block):
                index = int(result.indices[number, 0])
                row[f"{distance.name}_distance"] = float(result.distances[number, 0])
                row[f"{distance.name}_training"] = names[index]
                row[f"{distance.name}_index"] = index
                if isinstance(distance, PixelDistance):
                    row["place"] = int(result.places[number, 0])
                    candidates = result.indices[number], result.places[number]
                    values = similarity(images[number], training, *candidates)
                    row["ssim"] = float(values.max())
                    row["ssim_training"] = names[int(candidates[0][int(values.argmax())])]
        rows += block
    return rows


def describe(
    name: str,
    ref: Reference,
    control: dict[str, Any],
    rows: list[dict[str, Any]],
    rows_of_others: list[dict[str, Any]],
    patients_of_others: np.ndarray,
) -> dict[str, Any]:
    """Summarise one distance: threshold, control, and the quantiles of generated and of held-out images.

    The interval of the false alarms among the held-out images is over their patients.
    """
    column = f"{name}_distance"
    ends = {f"{q:g}": float(np.quantile(ref.distances, q)) for q in (0.05, 0.5, 0.95)}
    shares = {
        kind: {q: float(np.mean([row[column] < end for row in some])) for q, end in ends.items()}
        for kind, some in (("generated", rows), ("held_out", rows_of_others))
        if some
    }
    return {
        "threshold": ref.threshold,
        "meaning": ref.meaning,
        "reference_quantiles": ends,
        "control": control,
        "generated": _quantiles(rows, column),
        "held_out": _quantiles(rows_of_others, column),
        "copies_among_held_out": _count([row[column] < ref.threshold for row in rows_of_others], patients_of_others),
        "share_nearer_than_reference_quantile": shares,
    }


def judge(copies: list[bool]) -> dict[str, Any]:
    """Count the copies, with Wilson's interval of 95 %, and say whether the gate lets them through."""
    reasons = [f"it lets no more than {GATE:.0%} through"] if sum(copies) > GATE * len(copies) else []
    reasons += [f"it takes {GATE_IMAGES} images"] if len(copies) < GATE_IMAGES else []
    counted = _count(copies) or {}
    return {**counted, "gate": GATE, "gate_images": GATE_IMAGES, "passed": not reasons, "reason": " and ".join(reasons)}


def drop(made: ImageList, rows: list[dict[str, Any]]) -> None:
    """Write the datalist of the generated images less the copies, beside the datalist; the files stay."""
    content = json.loads(made.source.read_text(encoding="utf-8"))
    copies = {row["image"] for row in rows if row["copy"]}
    for split in SPLITS:
        if split in content:
            content[split] = [item for item in content[split] if item["image"] not in copies]
    path = made.source.with_name("datalist_without_copies.json")
    write_atomically(path, json.dumps(content, indent=4) + "\n")
    print(f"{path}: {sum(not row['copy'] for row in rows)} of {len(rows)} images")


def _count(copies: list[bool], patients: np.ndarray | None = None) -> dict[str, Any] | None:
    """Count copies; generated images are independent, others are those of patients."""
    if not copies:
        return None
    count, total = sum(copies), len(copies)
    ends = share_interval(count, total) if patients is None else mean_interval(np.array(copies), patients)
    return {"copies": count, "share": with_interval(count / total, ends)}


def _quantiles(rows: list[dict[str, Any]], column: str) -> dict[str, float] | None:
    return {f"{q:g}": float(np.quantile([row[column] for row in rows], q)) for q in QUANTILES} if rows else None


def _as_text(row: dict[str, Any]) -> dict[str, Any]:
    hidden = [name for name in row if name == "place" or name.endswith("_index")]
    return {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items() if k not in hidden}
