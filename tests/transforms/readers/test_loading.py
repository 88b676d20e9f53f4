from pathlib import Path

import numpy as np
import pytest
from monai.transforms import LoadImaged
from PIL import Image

from clinbundles.transforms.readers.images import RGBImageReader
from clinbundles.transforms.readers.loading import StrictLoadImaged


def test_a_file_that_the_reader_refuses_is_not_read_by_another_one(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 6), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    item = {"image": str(tmp_path / "deep.png")}
    assert LoadImaged("image", reader=RGBImageReader())(item)["image"].max() > 255, "MONAI no longer falls back"
    with pytest.raises(ValueError, match=r"deep\.png: pixel mode .* is deeper than 8 bits"):
        StrictLoadImaged("image", RGBImageReader())(item)


def test_what_the_reader_takes_is_loaded_as_monai_would(tmp_path: Path) -> None:
    Image.fromarray(np.arange(72, dtype=np.uint8).reshape(4, 6, 3)).save(tmp_path / "a.png")
    item = {"image": str(tmp_path / "a.png"), "other": 1}
    strict = StrictLoadImaged("image", RGBImageReader())(item)
    usual = LoadImaged("image", reader=RGBImageReader())(item)
    assert (strict["image"] == usual["image"]).all()
    assert strict["image"].meta["filename_or_obj"] == usual["image"].meta["filename_or_obj"]
    assert strict["other"] == 1
