"""In continuous integration a skip is a failure, but for what a machine may lack."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NEEDED = {
    "package": "pytest.importorskip('no_such_package')\n",
    "fixture": "@pytest.fixture\ndef tool():\n    pytest.skip('no dciodvfy')\n\ndef test_a(tool):\n    pass\n",
    "index": "def test_a():\n    pytest.skip('the package index cannot be reached')\n",
    "mark": "@pytest.mark.skipif(True, reason='onnx is not installed')\ndef test_a():\n    pass\n",
}
LACKED = {
    "GPU": "@pytest.mark.skipif(True, reason='no GPU')\ndef test_a():\n    pass\n",
    "CUDA": "@pytest.mark.skipif(True, reason='no CUDA device')\ndef test_a():\n    pass\n",
    "data": "def test_a():\n    pytest.skip('no folder /home/me/shared/data/gaze')\n",
    "memory": "def test_a():\n    pytest.skip('this system does not tell the peak memory of a process')\n",
    "fault": "@pytest.mark.xfail(reason='not mended yet')\ndef test_a():\n    assert False\n",
}


def run(folder: Path, codes: dict[str, str], *, ci: str) -> tuple[int, str]:
    """Run tests, a file for each code, with the rule of conftest.py: the exit status and what was printed."""
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    for name, code in codes.items():
        (folder / f"test_{name}.py").write_text("import pytest\n\ndef test_that_passes():\n    pass\n\n" + code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ | {"CI": ci}, check=False)
    return done.returncode, done.stdout


def test_a_skip_for_something_missing_fails_in_continuous_integration(tmp_path: Path) -> None:
    status, text = run(tmp_path, NEEDED | LACKED, ci="true")
    assert status == 1
    listed = text.partition("continuous integration has to have")[2].partition("short test summary")[0]
    assert {name for name in NEEDED | LACKED if f"test_{name}.py" in listed} == set(NEEDED)


def test_a_machine_may_lack_a_gpu_and_development_data(tmp_path: Path) -> None:
    status, text = run(tmp_path, LACKED, ci="true")
    assert status == 0, text


def test_elsewhere_skips_are_skips(tmp_path: Path) -> None:
    status, text = run(tmp_path, NEEDED, ci="")
    assert status == 0, text
