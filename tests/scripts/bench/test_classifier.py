import json
from pathlib import Path

import pytest

from clinbundles.scripts.bench import classifier


def test_each_kind_of_file_is_timed_beside_torchvision_and_beside_its_floor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "NETWORKS", ("PneumoniaCNN",))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "rows.json"
    classifier.main(rows="JPEG 1500,DICOM CR", rounds=2, n_files=2, threads=1, json=str(file))
    printed = capsys.readouterr().out
    content = json.loads(file.read_text())["covid_xray_transfer"]
    assert list(content["runs"]) == [
        "file to probabilities, PneumoniaCNN, JPEG 1500 x 1200, 1 CPU thread",
        "file to probabilities, PneumoniaCNN, DICOM CR 2000 x 2000, 1 CPU thread",
    ]
    for result in content["results"]:
        metrics = {name: numbers["value"] for name, numbers in result["metrics"].items()}
        assert 0 < metrics["decoding_ratio"] < metrics["floor_ratio"] < metrics["run_ratio"]
        assert metrics["error"] < 1e-4  # of the exported network
        assert metrics["difference"] < 1  # both sides see the same picture
        assert f"| PneumoniaCNN, {result['column']} | {metrics['plain_ms']:.1f} |" in printed
    assert list(tmp_path.iterdir()) == [file]
