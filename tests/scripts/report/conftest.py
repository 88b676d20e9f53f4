"""A small table of results that the tests of the report share."""

from typing import Any

import pytest

RUN = {
    "command": "clinbundles reproduce toy",
    "data": "eyes",
    "data_sha256": "0" * 64,
    "split": "6/2/2 images",
    "split_sha256": "not recorded",
    "gaze": "none",
    "gaze_sha256": "none",
    "seeds": [0, 1],
    "hardware": "a CPU",
    "scale": "cpu: max_epochs 2",
}


@pytest.fixture
def content() -> dict[str, Any]:
    """Two methods on eyes by two seeds, one of them with an interval, and a run of one seed beside it."""
    whole = {"mean": 0.8, "std": 0.01, "published": 0.9}
    half = {"mean": 0.75, "std": 0.02, "difference": -0.05, "difference_low": -0.06, "difference_high": 0.041}
    return {
        "headline": {
            **{"run": "grid", "row": "eyes", "column": "whole", "metric": "dice", "metric_title": "Dice"},
            "images": "eyes of nobody",
            "picture": "picture.png",
        },
        "runs": {"grid": dict(RUN), "levers": {**RUN, "seeds": [0]}},
        "results": [
            {
                "run": "grid",
                "row": "eyes",
                "column": "whole",
                "metrics": {"dice": whole},
                "cost": {"gmacs": 4.0, "gmacs_ratio": 1.0},
            },
            {
                "run": "grid",
                "row": "eyes",
                "column": "half",
                "metrics": {"dice": half},
                "cost": {"gmacs": 1.0, "gmacs_ratio": 0.25},
            },
            {
                "run": "levers",
                "row": "eyes",
                "column": "half",
                "metrics": {"dice": {"value": 0.7, "low": 0, "high": 1}},
            },
        ],
        "tables": [
            {
                "id": "methods",
                "where": "readme",
                "title": "Dice",
                "lines": [{"run": "grid", "column": "whole"}, {"run": "grid", "column": "half", "label": "one half"}],
                "columns": [
                    {"title": "method", "text": "label"},
                    {"title": "Dice", "metric": "dice"},
                    {"title": "paper", "metric": "dice", "value": "published", "format": ".1f"},
                    {"title": "interval", "metric": "dice", "value": "difference_interval"},
                    {"title": "operations", "cost": "gmacs_ratio", "format": ".2f"},
                ],
            },
            {
                "id": "levers",
                "where": "results",
                "title": "Levers",
                "note": "The seed is 0.",
                "lines": [{"row": "eyes"}],
                "columns": [
                    {"title": "data", "text": "row", "run": "levers"},
                    {"title": "seeds", "text": "seeds", "run": "levers"},
                    {"title": "Dice", "metric": "dice", "value": "interval", "run": "levers", "format": ".0f"},
                ],
            },
        ],
        "values": {"half": {"run": "grid", "column": "half", "metric": "dice", "value": "difference"}},
        "constants": {"0.5": "threshold"},
    }
