"""Tests of the one sentence of an error, and of runs by MONAI that end in it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged

from clinbundles.engines.sentences import sentence_of, speak

BUNDLE = Path(__file__).parents[2] / "bundles" / "gaze_polyp_segmentation"


def test_a_mistake_in_a_process_that_loads_data_is_found_in_its_traceback() -> None:
    text = (
        "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "x.py", line 1\nValueError: a.png: is no image.\n\nThe above exception was the direct cause of the '
        "following exception:\n\nRuntimeError: applying transform Load"
    )
    assert sentence_of(RuntimeError(text)) == "a.png: is no image."
    assert sentence_of(RuntimeError("out of memory")) is None


def allocate(by: str) -> None:
    if by == "torch":
        torch.zeros(10**15)  # more than there are addresses
    np.zeros(10**15)


@pytest.mark.parametrize("by", ["torch", "numpy"])
def test_memory_that_is_not_there_is_one_sentence(by: str) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate(by)
    sentence = sentence_of(caught.value)
    assert sentence is not None
    assert sentence.startswith("there is not enough memory")
    assert "smaller image_size" in sentence
    assert ("4000000000000000 bytes" in sentence) == (by == "torch")


def test_the_memory_of_a_gpu_is_told_as_torch_tells_it() -> None:
    error = RuntimeError("CUDA out of memory. Tried to allocate 20.50 GiB. GPU 0 has a total capacity of 79 GiB")
    assert sentence_of(error) == (
        "there is not enough memory, 20.50 GiB at once: give a smaller image_size or batch_size, or smaller images."
    )


@pytest.mark.parametrize(("package", "is_spoken"), [("polyps_0123abcd", True), ("numpy", False), ("scripts", False)])
def test_the_code_of_any_zip_in_a_process_speaks_to_the_user(package: str, is_spoken: bool) -> None:
    with pytest.raises(ValueError, match=r"a\.png") as caught:
        exec("raise ValueError('a.png: is no image.')", {"__name__": f"{package}.readers"})
    assert sentence_of(caught.value) == ("a.png: is no image." if is_spoken else None)


@pytest.mark.filterwarnings("ignore")  # ITK, which MONAI tries too, dies of a warning that is an error
def test_a_file_that_monai_cannot_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_text("junk")
    with pytest.raises(RuntimeError, match="applying transform") as caught:
        Compose([LoadImaged("image", reader="PILReader")])({"image": str(tmp_path / "a b.png")})
    assert sentence_of(caught.value) == f"{tmp_path}/a b.png: no reader of MONAI can read it."


def test_a_fault_of_the_program_has_no_sentence() -> None:
    assert sentence_of(ValueError("raised by no library of those that speak to users")) is None
    assert sentence_of(OSError("disk.png: cannot be\nwritten")) == "disk.png: cannot be written"


def test_the_process_is_changed_where_it_is_monais_command_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", before := sys.excepthook)
    speak()
    assert sys.excepthook is before


@pytest.mark.parametrize("asks", [False, True])
def test_a_run_by_monai_ends_in_one_sentence_unless_a_traceback_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: bool
) -> None:
    if asks:
        monkeypatch.setenv("CLINBUNDLES_TRACEBACK", "1")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    command += ["--dataset_dir", str(tmp_path / "none"), "--output_dir", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=BUNDLE, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert ("Traceback" in done.stderr) == asks
    assert (last.startswith("monai.bundle: ") and str(tmp_path / "none") in last) != asks
