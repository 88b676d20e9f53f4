import hashlib
import json
from pathlib import Path

import pytest

from clinbundles.scripts.bundle import find_bundle
from clinbundles.scripts.pack.archive import unzip, zipped
from clinbundles.scripts.pack.run import pack
from clinbundles.scripts.predict.run import predict
from clinbundles.scripts.predict.unchanged import check_weights, check_zip

POLYPS = "gaze_polyp_segmentation"


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    pack(POLYPS, out=str(tmp_path / "dist"))
    return next((tmp_path / "dist").glob("*.zip"))


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    frame = next((find_bundle(POLYPS) / "samples").rglob("*.jpg"))
    (folder / "a.jpg").write_bytes(frame.read_bytes())
    return folder


def repacked(zip_file: Path, change: str, content: bytes, tmp_path: Path) -> Path:
    """Write a zip with another file in it."""
    folder = unzip(zip_file, tmp_path / "changed")
    (folder / change).write_bytes(content)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    other = tmp_path / "other" / zip_file.name
    other.parent.mkdir()
    other.write_bytes(zipped({f"{folder.name}/{name}": content for name, content in files.items()}))
    return other


def test_a_zip_with_other_weights_than_its_card_has_is_refused_and_leaves_nothing(
    packed: Path, frames: Path, tmp_path: Path
) -> None:
    weights = (find_bundle("two_stage_segmentation") / "models" / "model.pt").read_bytes()
    changed = repacked(packed, "models/model.pt", weights, tmp_path)
    digest = hashlib.sha256(weights).hexdigest()[:12]
    with pytest.raises(
        ValueError, match=rf"model\.pt: has sha256 {digest}, its card model\.json is of d4713ee28208: one"
    ):
        predict(str(changed), str(frames), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_zip_that_its_model_info_does_not_know_so_is_refused(packed: Path, frames: Path, tmp_path: Path) -> None:
    check_zip(packed)
    info = packed.with_name("model_info.json")
    entries = json.loads(info.read_text())
    entries[packed.stem]["sha256"] = "0" * 64
    info.write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=r"model_info\.json: .*\.zip has sha256 \w{12}, model_info\.json 000000000000"):
        predict(str(packed), str(frames), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    info.unlink()
    check_zip(packed)


def test_weights_without_a_card_pass(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    check_weights(tmp_path)
    (tmp_path / "models" / "model.pt").write_bytes(b"x")
    check_weights(tmp_path)
    (tmp_path / "models" / "model.json").write_text('{"weights_sha256": "12"}')
    with pytest.raises(ValueError, match="is of 12: one of the two was changed"):
        check_weights(tmp_path)
