from typing import Any

import pytest

from clinbundles.scripts.audit.report import compose_audit
from clinbundles.scripts.audit.results import as_results
from clinbundles.scripts.report.results import check_results

RUN: dict[str, Any] = {
    **{"command": "clinbundles audit", "data": "noise", "data_sha256": "none", "split": "none", "split_sha256": "none"},
    **{"gaze": "none", "gaze_sha256": "none", "seeds": [0], "hardware": "a CPU", "scale": "audit"},
}


SEEN = {"images": 6, "trained_on": 2, "validated_on": 0, "same_patient": 0}


OUTSIDE: dict[str, Any] = {
    **{"in": 5, "used": 4, "left_out": 1, "reasons": {"is empty": 1}, "mean_confidence": 0.8, "temperature": 1.0},
    "classes": {
        "covid19": {"called": 3, "share": {"value": 0.75, "low": 0.3, "high": 0.95}, "mean_confidence": 0.9},
        "normal": {"called": 0, "share": {"value": 0.0, "low": 0.0, "high": 0.49}, "mean_confidence": None},
    },
}


def metrics(accuracy: float, low: float | None) -> dict[str, Any]:
    score = {"value": accuracy, "low": low, "high": low and 1.0}
    classes = {name: {"images": 3, "recall": score} for name in ("normal", "covid19")}
    scores = {"val_accuracy": score, "val_macro_f1": score}
    return {"images": 6, "groups": 6, "unit": "patients", "scores": scores, "classes": classes, "sources": None}


def test_each_classifier_group_and_map_is_a_result_with_its_interval() -> None:
    audit = compose_audit(
        [("audited", "whole", metrics(0.9, 0.8)), ("always the commonest class", "chance", metrics(0.5, None))],
        facts={"entries": ["image", "label"]},
        patients={"normal": 3, "covid19": 5},
        outside={"web": OUTSIDE},
        seen={"known": True, "basis": "", "audited": {"test": SEEN, "outside web": SEEN}, "list": SEEN},
        disease_calls={"test, without covid19": {"images": 4, "called": 1, "share": {"value": 0.25, "low": None}}},
        grad_cam={"share": {"value": 0.6, "low": 0.5, "high": 0.7}, "lung_fields": 0.55},
    )
    content = as_results(audit, RUN)
    check_results(content, "results.json")
    named = {(result["row"], result["column"]): result["metrics"] for result in content["results"]}
    assert named["audited", "the whole image"]["recall_covid19"] == {
        **{"value": 0.9, "low": pytest.approx(0.376, abs=1e-3), "high": pytest.approx(0.964, abs=1e-3)}
    }
    assert named["outside web", "covid19"]["share"] == {"value": 0.75, "low": 0.3, "high": 0.95}
    assert named["outside web", "covid19"]["images"] == {"value": 4}
    assert named["outside web", "all"] == {"mean_confidence": {"value": 0.8}}
    assert named["audited", "the whole image"]["test_images_trained_on"] == {"value": 2}
    assert named["always the commonest class", "nothing"]["val_accuracy"] == {"value": 0.5}
    assert named["called covid19", "test, without covid19"] == {
        "images": {"value": 4},
        "called": {"value": 1},
        "share": {"value": 0.25},
    }
    assert named["Grad-CAM", "the lung fields"]["share_of_image"] == {"value": 0.55}
