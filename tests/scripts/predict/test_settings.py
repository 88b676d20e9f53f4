"""Tests of what an output folder is made with, and of the answers that are refused for it."""

import json
import shutil
from pathlib import Path

import pytest

from clinbundles.scripts.predict.settings import (
    Settings,
    check_made,
    check_settings,
    claim,
    settings_of,
)
from clinbundles.scripts.predict.studies import DONE, Status, Study, write_status

BUNDLE = Path(__file__).parents[3] / "bundles" / "two_stage_segmentation"
SETTINGS = Settings("0" * 64, "inference", {"batch_size": 2})


def test_settings_are_of_a_bundles_bytes_and_of_those_of_files_that_are_options(tmp_path: Path) -> None:
    shutil.copytree(BUNDLE / "configs", tmp_path / "mine" / "configs")
    (tmp_path / "w.pt").write_text("1")
    options = {"ckpt_path": str(tmp_path / "w.pt"), "sizes": (1, 2)}
    first = settings_of(str(tmp_path / "mine"), "inference", options)
    assert first == settings_of(str(tmp_path / "mine"), "inference", options)
    (tmp_path / "w.pt").write_text("2")
    second = settings_of(str(tmp_path / "mine"), "inference", options)
    assert second.bundle_sha256 == first.bundle_sha256
    assert second.sha256 != first.sha256
    (tmp_path / "mine" / "models").mkdir()
    (tmp_path / "mine" / "models" / "model.pt").write_text("weights")
    assert settings_of(str(tmp_path / "mine"), "inference", options).bundle_sha256 != first.bundle_sha256
    with pytest.raises(FileNotFoundError, match=r"absent\.zip: no such file"):
        settings_of(str(tmp_path / "absent.zip"), "inference", {})


def test_what_differs_is_named_and_a_torn_file_is_written_again(tmp_path: Path) -> None:
    for _ in "12":
        assert claim(tmp_path, SETTINGS, [tmp_path / "a.png"]) == [Study("a", tmp_path / "a.png")]
    other = Settings("1" * 64, "inference_onnx", {"amp": True})
    with pytest.raises(ValueError, match="the studies there are of another bundle") as caught:
        claim(tmp_path, other)
    assert str(caught.value) == (
        f"{tmp_path / 'settings.json'}: the studies there are of another bundle (sha256 000000000000, now "
        "111111111111), config (inference, now inference_onnx), --amp (its default, now True), --batch_size (2, now "
        "its default): choose another output."
    )
    (tmp_path / "settings.json").write_text('{"bundle_sha')
    check_settings(tmp_path, other)
    claim(tmp_path, other)
    assert json.loads((tmp_path / "settings.json").read_text())["config"] == "inference_onnx"


def test_statuses_of_other_settings_are_refused(tmp_path: Path) -> None:
    for facts, message in (
        ({}, r"status/1\.json: does not say what it is made of: choose another output"),
        ({"settings_sha256": "0"}, r"status/1\.json: is of another bundle, config or options"),
    ):
        write_status(tmp_path / "status", Status("1", DONE, **facts))
        with pytest.raises(ValueError, match=message):
            check_made(tmp_path, SETTINGS)
    write_status(tmp_path / "status", Status("1", DONE, settings_sha256=SETTINGS.sha256))
    check_made(tmp_path, SETTINGS)
