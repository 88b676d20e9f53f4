import json
from pathlib import Path

import numpy as np
import pytest

from clinbundles.scripts.bench import packed
from clinbundles.scripts.bench.packed import first_picture, main, run_in_new_process, time_starts, zips_of

ROOT = Path(__file__).parents[3]
BUNDLE = ROOT / "bundles" / "covid_xray_transfer"


def test_a_start_is_timed_to_the_result_of_one_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def run(words: list[str], folder: Path, threads: int) -> None:
        place = Path(words[-1]).parent
        commands.append((words, [path.name for path in (place / "images").iterdir()], folder, threads))
        if words[0] == str(packed.BARE):
            run_in_new_process(words, folder, threads)  # the real one: a result of the network
            assert np.load(words[-1]).shape == (1, 3)

    monkeypatch.setattr(packed, "run_in_new_process", run)
    seconds = time_starts(BUNDLE, starts=1, threads=1)
    assert {name: len(values) for name, values in seconds.items()} == {"bare script": 1, "packed bundle": 1}
    assert len(commands) == 4  # the first two warm the cache of files, and do not count
    picture = first_picture(BUNDLE).name
    assert [names for _, names, _, _ in commands] == 4 * [[picture]]
    assert commands[1][0][:3] == ["-m", "monai.bundle", "run"]


def test_rows_of_starts_and_runtimes_are_ratios_to_what_one_would_use_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "time_starts", lambda folder, **_: {"bare script": [2, 4], "packed bundle": [3, 4]})
    monkeypatch.setattr(packed, "time_runtimes", lambda folder, **_: {"eager": [0.2], "onnx": [0.1]})
    monkeypatch.setattr(packed, "config_names", lambda folder: ["inference", "inference_onnx"])
    main(str(BUNDLE), json=str(tmp_path / "bench.json"))
    content = json.loads((tmp_path / "bench.json").read_text())["covid_xray_transfer"]
    assert list(content["runs"]) == ["cold start, 1 CPU thread", "runtimes, 1 CPU thread"]
    rows = {result["column"]: result["metrics"] for result in content["results"]}
    assert rows["packed bundle"]["time"] == {"value": 1.25, "low": 1.0, "high": 1.5}
    assert rows["onnx"] == {
        "ms": {"value": 100, "low": 100, "high": 100},
        "time": {"value": 0.5, "low": 0.5, "high": 0.5},
    }


def test_a_folder_stands_for_its_zips_and_one_without_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no zip in it; clinbundles pack --all"):
        zips_of(tmp_path)
    for name in ("b.zip", "a.zip", "model_info.json"):
        (tmp_path / name).touch()
    assert [path.name for path in zips_of(tmp_path)] == ["a.zip", "b.zip"]
    assert zips_of(tmp_path / "a.zip") == [tmp_path / "a.zip"]


def test_a_process_that_fails_ends_the_bench_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ValueError: no weights"):
        run_in_new_process(["-c", "raise ValueError('no weights')"], tmp_path, 1)
