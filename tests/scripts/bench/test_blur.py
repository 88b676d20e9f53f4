import json
from pathlib import Path

import pytest

from clinbundles.scripts.bench import blur


def test_the_blur_is_timed_beside_one_of_fixed_width_and_is_the_sum_that_it_should_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.json"
    blur.main(size=48, threads=1, rounds=1, json=str(file))
    content = json.loads(file.read_text())["gaze_polyp_segmentation"]
    (run,) = content["runs"]
    assert run == "blur, 1 x 3 x 48 x 48, float32, 1 CPU thread"
    rows = {result["column"]: result["metrics"] for result in content["results"]}
    assert rows[blur.FIXED]["time"]["value"] == 1
    assert rows["this blur, sigma random in [0, 2]"]["error"]["value"] < 1e-5
    assert rows["unfold formulation"]["ms"]["value"] > 0
    assert "the whole transform, checks and all" in capsys.readouterr().out
