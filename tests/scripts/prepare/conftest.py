"""Sample data sets in their layouts, written where a test wants them, and the command that prepares them."""

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clinbundles.scripts import cli
from clinbundles.scripts.prepare.command import prepare
from clinbundles.scripts.prepare.datalist import items_of

GAZEMEDSEG = (
    "IMAGE,CURRENT_FIX_INDEX,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,CURRENT_FIX_PUPIL"
    ",CURRENT_FIX_START,IMAGE_HEIGHT,IMAGE_WIDTH"
)


def smooth_picture(seed: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """Smooth random image (H, W, 3) of ``size`` (W, H), so that a small change of it stays small in the hash."""
    coarse = np.random.RandomState(seed).randint(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


@pytest.fixture(scope="session")
def picture() -> Callable[..., np.ndarray]:
    """A smooth random image by its seed."""
    return smooth_picture


@pytest.fixture(scope="session")
def write_pairs() -> Callable[..., Path]:
    """Writer of a plain data set of unlike images i0.jpg, i1.jpg, ... whose masks are white on the left."""

    def write(root: Path, count: int = 10, mask_suffix: str = ".png") -> Path:
        for name in ("images", "masks"):
            (root / name).mkdir(parents=True, exist_ok=True)
        mask = np.zeros((30, 40), np.uint8)
        mask[:, :20] = 255
        for k in range(count):
            Image.fromarray(smooth_picture(k, (40, 30))).save(root / "images" / f"i{k}.jpg")
            Image.fromarray(mask).save(root / "masks" / f"i{k}{mask_suffix}")
        return root

    return write


@pytest.fixture
def plain(tmp_path: Path, write_pairs: Callable[..., Path]) -> Path:
    """A plain data set of ten pairs."""
    return write_pairs(tmp_path / "plain")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Prepare a data set in a folder, a plain one unless its name is given, and read the datalist."""

    def run(root: Path, data_set: str = "folder", **flags: Any) -> dict[str, Any]:
        if data_set == "folder":
            flags = {"label": "polyp", "modality": "endoscopy", **flags}
        prepare(data_set, str(root), str(tmp_path / "datalist.json"), **flags)
        return json.loads((tmp_path / "datalist.json").read_text())

    return run


@pytest.fixture(scope="session")
def write_gaze() -> Callable[..., Path]:
    """Writer of fixations (image, x, y, duration in ms) in the columns of GazeMedSeg."""

    def write(path: Path, rows: Sequence[tuple[str, float, float, float]]) -> Path:
        with path.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(GAZEMEDSEG.split(","))
            writer.writerows([name, k + 1, x, y, ms, 900, 0, 30, 40] for k, (name, x, y, ms) in enumerate(rows))
        return path

    return write


@pytest.fixture
def add(plain: Path, run: Callable[..., Any], tmp_path: Path, capsys: Any) -> Callable[..., Any]:
    """Type ``clinbundles add-gaze`` with a file and flags; gives the fixations by image, or the sentence it ends in."""
    run(plain)
    output = tmp_path / "with_gaze.json"

    def add(gaze: str | Path, *flags: str) -> dict[str, Any] | str:
        capsys.readouterr()
        try:
            cli.main(["add-gaze", str(tmp_path / "datalist.json"), str(gaze), *flags, "--output", str(output)])
        except SystemExit as error:
            return str(error)
        content = json.loads(output.read_text())
        return {i["image"].partition("/")[2]: i["fixations"] for i in items_of(content) if "fixations" in i}

    return add


@pytest.fixture(scope="session")
def drawn() -> Callable[..., str]:
    """Digest of which images a datalist puts into which split, in which order."""

    def digest(content: dict[str, Any]) -> str:
        lists = {name: value for name, value in content.items() if isinstance(value, list) and value}
        splits = {name: items for name, items in lists.items() if isinstance(items[0], dict) and "image" in items[0]}
        names = {name: [item["image"] for item in items] for name, items in splits.items()}
        return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]

    return digest


@pytest.fixture(scope="session")
def write_x_ray() -> Callable[..., Path]:
    """Writer of a smooth random picture in grey, by its seed."""

    def write(path: Path, seed: int, *, size: tuple[int, int] = (48, 40)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.RandomState(seed).randint(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
        return path

    return write
