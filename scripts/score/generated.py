"""``clinbundles score generated``: KID, FID, precision, recall, density and coverage of generated images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from clinbundles.engines.metrics.generation import NEIGHBOURS, remarks
from clinbundles.engines.metrics.generation import score_generated as score_features
from clinbundles.engines.outputs.files import write_atomically
from clinbundles.nets.feature_extractor import feature_extractor, features_of
from clinbundles.scripts.bars import watch
from clinbundles.scripts.generated_images import ImageList, has_split, read_generated, read_list
from clinbundles.scripts.report.tables import as_markdown

BLOCK = 64


def score_generated(
    *,
    generated: str,
    real: str,
    dataset_dir: str | None = None,
    split: str = "training",
    held_out: str = "test",
    feature_weights: str | None = None,
    features: str = "MobileNetV2",
    output_dir: str | None = None,
) -> None:
    """Score generated images beside real ones, with intervals over generated images; write scores.json.

    The measures are KID, FID and, from the balls to each image's fifth neighbour, precision, recall, density and
    coverage. Their names end in that of the features, such as KID-MobileNetV2. Real images of a split that was not
    trained on are scored in the same way, as a yardstick.

    Args:
        generated: folder with datalist.json and images, as generate writes it.
        real: JSON datalist of real images.
        dataset_dir: folder that its paths start from; that of the datalist if not given.
        split: the split to compare with.
        held_out: a split of other real images, scored as if they were generated; left out if there is none.
        feature_weights: weights of the feature extractor, of clinbundles convert-weights; random ones are refused.
        features: MobileNetV2, or Inception: a TorchScript file, and opening it runs the code in it.
        output_dir: where scores.json goes; the folder score in that of the generated images if not given.
    """
    made, truth = read_generated(generated), read_list(real, dataset_dir, split=split)
    extractor = feature_extractor(feature_weights, name=features)
    name, like = str(extractor.name), made.read(0, 1)[0]
    of_real = embed(truth, extractor, like=like, desc=split)
    of_made = embed(made, extractor, like=like, desc="generated")
    lines = remarks(of_real, of_made)
    scores = {"generated": score_features(of_real, of_made, name=name)}
    counts = {split: len(of_real), "generated": len(of_made)}
    if held_out != split and has_split(real, held_out):
        others = embed(read_list(real, dataset_dir, split=held_out), extractor, like=like, desc=held_out)
        if len(others) > NEIGHBOURS:
            # Those are images of patients and not independent: resampled images would give too narrow intervals.
            measured = score_features(of_real, others, name=name)
            scores[held_out] = {measure: {"value": each["value"]} for measure, each in measured.items()}
            counts[held_out] = len(others)
    output = Path(output_dir) if output_dir else Path(generated) / "score"
    output.mkdir(parents=True, exist_ok=True)
    content = {"images": counts, "features": name, "neighbours": NEIGHBOURS, "remarks": lines, "scores": scores}
    write_atomically(output / "scores.json", json.dumps(content, indent=4) + "\n")
    print(f"{counts}\n\n{as_table(scores)}")
    print("\n".join(lines))
    print(f"scores.json: {output}")


def embed(listed: ImageList, extractor: nn.Module, *, like: torch.Tensor, desc: str) -> np.ndarray:
    """Compute the features (N, D) of the images of a list, a block at a time."""
    parts = []
    for start in watch(range(0, len(listed.items), BLOCK), desc=desc, unit="block"):
        images = listed.read(start, start + BLOCK, like=like)
        parts.append(features_of(extractor, images).numpy())
    return np.concatenate(parts)


def as_table(scores: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> str:
    """Write scores as a Markdown table: a line a measure, the generated images first and held-out ones beside."""
    others = [kind for kind in scores if kind != "generated"]
    titles = ["measure", "generated", "95 %", *(f"{kind} images" for kind in others)]
    rows = [
        [measure, f"{row['value']:.4g}", "" if row["low"] is None else f"{row['low']:.4g} to {row['high']:.4g}"]
        + [f"{scores[kind][measure]['value']:.4g}" for kind in others]
        for measure, row in scores["generated"].items()
    ]
    return as_markdown(titles, rows)
