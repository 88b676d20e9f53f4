import json
from pathlib import Path

import pytest

from clinbundles.scripts.bench.training import main


def test_the_shipped_training_is_timed_beside_the_bare_loop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "rates.json"
    main(size=32, batch=2, steps=2, channels="4,4,4,4,4,4", threads=1, rounds=1, json=str(file))
    results = json.loads(file.read_text())["gaze_polyp_segmentation"]["results"]
    rows = {result["column"]: result["metrics"]["images_per_second"]["value"] for result in results}
    assert set(rows) == {
        "bare loop",
        "bare loop, channels_last",
        "train.json, augment_on cpu, 0 workers",
        "train.json, augment_on device",
        "train.json, augment_on device, channels_last",
    }
    assert min(rows.values()) > 0
    assert rows["bare loop"] > rows["train.json, augment_on cpu, 0 workers"]  # which also loads and augments
    assert "| train.json, augment_on device |" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [file]
