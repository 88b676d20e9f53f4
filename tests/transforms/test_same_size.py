from pathlib import Path

import numpy as np
import pytest
from monai.transforms import Compose, EnsureChannelFirstd, Resized
from PIL import Image

from clinbundles.transforms.readers.images import BinaryMaskReader, RGBImageReader
from clinbundles.transforms.readers.loading import StrictLoadImaged
from clinbundles.transforms.same_size import SameSizeCheckd

LOAD = Compose(
    [
        StrictLoadImaged("image", RGBImageReader()),
        EnsureChannelFirstd("image"),
        Resized("image", (16, 16)),
        StrictLoadImaged("label", BinaryMaskReader()),
        EnsureChannelFirstd("label"),
        SameSizeCheckd(["image", "label"]),
    ]
)


@pytest.mark.parametrize("size", [(20, 30), (30, 20), (21, 30)])
def test_a_label_of_another_size_than_its_image_as_it_was_read_is_refused(tmp_path: Path, size) -> None:
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.eye(*size, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    item = {"image": str(tmp_path / "a.png"), "label": str(tmp_path / "mask.png")}
    if size == (20, 30):
        sample = LOAD(item)
        assert sample["image"].shape == (3, 16, 16)
        assert sample["label"].shape == (1, 20, 30)
        return
    with pytest.raises(RuntimeError) as caught:
        LOAD(item)
    assert str(caught.value.__cause__) == f"{item['label']}: is {size[1]}x{size[0]} px, and its image 30x20."
