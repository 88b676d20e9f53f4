"""An audit as runs and results, ready to join a bundle's docs/results.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .report import AUDITED, DISEASE, INPUTS

RUN = "audit"


def as_results(audit: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """Write an audit as one run, and a result for each classifier, group of images and map.

    Args:
        audit: what :func:`.report.compose_audit` returned.
        run: where it comes from.
    """
    results = []
    for row in audit["results"]:
        metrics = {"val_accuracy": _with_ends(row["accuracy"]), "val_macro_f1": _with_ends(row["macro_f1"])}
        metrics |= {f"recall_{label}": _with_ends(recall) for label, recall in row["recall"].items()}
        if row["model"] == AUDITED and audit["seen"]["known"]:
            metrics["test_images_trained_on"] = {"value": audit["seen"]["audited"]["test"]["trained_on"]}
        results.append(_result(row["model"], INPUTS[row["input"]], metrics))
    for group, calls in (audit["disease_calls"] or {}).items():
        numbers: dict[str, Any] = {name: {"value": calls[name]} for name in ("images", "called")}
        results.append(_result(f"called {DISEASE}", group, numbers | {"share": _with_ends(calls["share"])}))
    for name, found in audit["outside"].items():
        for label, each in found["classes"].items():
            numbers = {"images": {"value": found["used"]}, "called": {"value": each["called"]}}
            results.append(_result(f"outside {name}", label, numbers | {"share": _with_ends(each["share"])}))
        results.append(
            _result(f"outside {name}", "all", {"mean_confidence": _with_ends({"value": found["mean_confidence"]})})
        )
    cam = audit["grad_cam"]
    shares = {"share_of_mass": _with_ends(cam["share"]), "share_of_image": {"value": cam["lung_fields"]}}
    results.append(_result("Grad-CAM", "the lung fields", shares))
    return {"runs": {RUN: dict(run)}, "results": results}


def _result(row: str, column: str, metrics: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    return {"run": RUN, "row": row, "column": column, "metrics": {k: v for k, v in metrics.items() if v}}


def _with_ends(score: Mapping[str, float | None]) -> dict[str, float]:
    """A score and its interval, less what is undefined."""
    return {name: number for name in ("value", "low", "high") if (number := score.get(name)) is not None}
