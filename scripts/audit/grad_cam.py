"""Grad-CAM of an audited model: a few pictures, and how much of the maps' mass lies in the lung fields."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from clinbundles.engines.metrics.intervals import mean_interval, with_interval
from clinbundles.engines.outputs.files import write_atomically
from clinbundles.engines.outputs.per_image import patients_of, read_class_table
from clinbundles.scripts.audit.setting import Setting
from clinbundles.scripts.bars import watch
from clinbundles.transforms.image_region import lung_fields


def grad_cam_shares(setting: Setting, *, layer: str, per_class: int) -> dict[str, Any]:
    """Draw Grad-CAM of a few test images a class, and give the share of its mass inside the lung fields, of all."""
    folder, test, names = setting.output / "grad_cam", setting.items["test"], setting.class_names
    path = folder / "lung_share.json"
    if path.is_file():
        return json.loads(path.read_text())
    print(f"Grad-CAM at layer {layer}: {per_class} pictures a class, shares of all test images", flush=True)
    table, _ = read_class_table(setting.output / "audited" / "whole" / "per_image.csv", names)
    writer = {
        "_target_": "clinbundles.engines.outputs.grad_cam.GradCamWriter",
        **{"output_dir": "@output_dir", "network": "@network", "target_layer": layer},
        **{"class_names": "@class_names", "reader": "@image_reader"},
    }
    parser = setting.parser(output_dir=str(folder))
    shown = [test[k] for k in pick(test, per_class=per_class, seed=setting.seed)]
    parser.update({"evaluation#dataset#data": shown, "grad_cam": writer})
    parser["validate#handlers"] = ["@validate#weights_loader", "@grad_cam"]
    parser.get_parsed_content("validate#evaluator").run()
    heat_map = parser.get_parsed_content("grad_cam").heat_map
    preprocessing = parser.get_parsed_content("validate#preprocessing")
    shares = []
    for item, predicted in zip(watch(test, desc="Grad-CAM", unit="image"), table["prediction"], strict=True):
        image = preprocessing(item)["image"]
        fields = lung_fields(*image.shape[-2:]).numpy()
        shares.append(share_inside(heat_map(image, names.index(predicted)), fields))
    table["share"] = shares
    good = table.dropna(subset="share")
    values = good["share"].to_numpy()
    found = {
        "layer": layer,
        "share": with_interval(values.mean() if len(values) else math.nan, mean_interval(values, patients_of(good))),
        "share_by_label": {
            str(name): round(float(share), 4) for name, share in good.groupby("label")["share"].mean().items()
        },
        "lung_fields": round(float(fields.mean()), 4),
        "images": len(good),
        "empty_maps": len(table) - len(good),
    }
    write_atomically(path, json.dumps(found, indent=4))
    return found


def pick(items: Sequence[dict[str, Any]], *, per_class: int, seed: int) -> list[int]:
    """Draw ``per_class`` items of each class at random; their indices, in order."""
    taken: Counter[int] = Counter()
    chosen = []
    for k in np.random.default_rng(seed).permutation(len(items)).tolist():
        taken[items[k]["label"]] += 1
        if taken[items[k]["label"]] <= per_class:
            chosen.append(k)
    return sorted(chosen)


def share_inside(heat: np.ndarray, fields: np.ndarray) -> float:
    """Measure the share of a map (h, w), stretched to (H, W), that lies where bool (H, W) is true.

    NaN for a map that is zero everywhere.
    """
    stretched = F.interpolate(torch.from_numpy(heat)[None, None].float(), fields.shape, mode="bilinear")[0, 0].numpy()
    return float(stretched[fields].sum() / stretched.sum()) if stretched.sum() > 0 else float("nan")
