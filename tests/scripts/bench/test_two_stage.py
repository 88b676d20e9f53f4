"""The bench from a folder of links, without the libraries that only trackers and readers of images need."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clinbundles.scripts.bench import two_stage

ROOT = Path(__file__).parents[3]
BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mlflow", "zarr", "itk"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def bench(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "clinbundles").mkdir()
    for wing in ("transforms", "nets", "engines", "scripts"):
        (folder / "clinbundles" / wing).symlink_to(ROOT / wing)
    (folder / "sitecustomize.py").write_text(BLOCK)
    command = [sys.executable, "-m", "clinbundles.scripts.cli", "bench", "two_stage", *words]
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("library", ["mlflow", "zarr", "itk"])
def test_the_libraries_are_blocked(tmp_path: Path, library: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    tried = subprocess.run([sys.executable, "-c", f"import {library}"], env=environment, capture_output=True, text=True)
    assert f"No module named {library!r}" in tried.stderr


def test_rows_stand_beside_the_networks_alone_and_full_resolution(tmp_path: Path) -> None:
    options = "--sizes 256 --batches 1,2 --rounds 2 --threads 1 --memory_size 0 --sliding --json rows.json"
    done = bench(tmp_path, *options.split())
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "rows.json").read_text())["two_stage_segmentation"]
    rows = {(result["run"], result["column"]): result["metrics"] for result in content["results"]}
    for precision in ("float32", "bfloat16"):
        for batch in (1, 2):
            run = f"two stages, 256, batch {batch}, {precision}, 1 CPU thread"
            assert "torch" in content["runs"][run]["note"]
            assert content["runs"][run]["command"].endswith("--memory_size 0 --sliding")
            assert rows[run, "full resolution"]["time"] == {"value": 1, "low": 1, "high": 1}
            for n in (2, 4, 8):
                alone, both = (rows[run, f"{name}, N_p = {n}"] for name in ("networks alone", "two stages"))
                assert alone["of_networks"]["value"] == 1
                assert both["of_networks"]["low"] > 0
                assert both["operations"]["value"] == pytest.approx(1 / 64 + 1 / n, abs=1e-4)
                assert f"| two stages, N_p = {n} | {both['ms']['value']:.1f} |" in done.stdout
    assert "SlidingWindowInferer, side / 8, overlap 0.25" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [({"precisions": "float64"}, "'float64' is not one of float32"), ({"sizes": "768,big"}, "--sizes: 'big'")],
)
def test_what_cannot_be_timed_is_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        two_stage.main(**options)
