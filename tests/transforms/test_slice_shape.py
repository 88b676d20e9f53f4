from pathlib import Path

import numpy as np
import pytest
from monai.transforms import Compose, EnsureChannelFirstd, Resized
from PIL import Image

from clinbundles.transforms.readers.loading import StrictLoadImaged, reading_error
from clinbundles.transforms.readers.slices import LabelMapReader, SliceReader
from clinbundles.transforms.slice_shape import SliceShaped


def read(folder: Path, image: np.ndarray, label: np.ndarray, *, channels: int = 1, varied: bool = False) -> dict:
    """Read and resize as the configs do, then check."""
    item = {}
    for name, values in (("image", image), ("label", label)):
        item[name] = str(folder / f"{name}.png")
        Image.fromarray(values.astype(np.uint8)).save(item[name])
    steps = [
        StrictLoadImaged("image", SliceReader()),
        StrictLoadImaged("label", LabelMapReader(["background", "disc"])),
        EnsureChannelFirstd(["image", "label"]),
        Resized(["image", "label"], (16, 16, -1), mode=["trilinear", "nearest-exact"]),
        SliceShaped(["image", "label"], 16, channels=channels, varied=varied),
    ]
    return Compose(steps)(item)


def test_slices_of_the_right_size_pass_as_they_are(tmp_path: Path) -> None:
    image, label = np.arange(256).reshape(16, 16), np.eye(16)
    result = read(tmp_path, image, label, varied=True)
    assert np.array_equal(result["image"][0, ..., 0], image)
    assert np.array_equal(result["label"][0, ..., 0], label)
    read(tmp_path, image, np.zeros((16, 16)), varied=True)  # a label map may be empty
    read(tmp_path, np.full((16, 16), 7), label)


@pytest.mark.parametrize(
    ("image", "label", "options", "message"),
    [
        (np.eye(32), np.eye(16), {}, "image.png: is 32x32 px, and image_size is 16"),
        (np.eye(16)[:8], np.eye(16), {}, "image.png: is 16x8 px, and image_size is 16"),
        (np.eye(16), np.eye(32), {}, "label.png: is 32x32 px, and image_size is 16"),
        (np.eye(16), np.eye(16), {"channels": 3}, "image.png: has 1 channels, and in_channels is 3"),
        (np.full((16, 16), 7), np.eye(16), {"varied": True}, "image.png: all its pixels have one value"),
    ],
)
def test_others_are_refused_by_the_name_of_their_file(
    tmp_path: Path, image: np.ndarray, label: np.ndarray, options: dict, message: str
) -> None:
    with pytest.raises(RuntimeError) as caught:
        read(tmp_path, image, label, **options)
    assert message in str(reading_error(caught.value))
