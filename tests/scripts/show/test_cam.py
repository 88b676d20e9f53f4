from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from clinbundles.nets.pneumonia_cnn import PneumoniaCNN

XRAYS = Path(__file__).parents[3] / "bundles" / "covid_xray_transfer" / "samples"


@pytest.fixture(scope="module")
def module(load_script) -> ModuleType:
    return load_script("show.cam")


def test_images_of_each_class_stand_beside_what_speaks_for_the_call(module: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = PneumoniaCNN(3, channels=[4, 4], dense_units=8, image_size=32)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    knobs = {"channels": [4, 4], "dense_units": 8, "image_size": 32, "ckpt_path": str(tmp_path / "model.pt")}
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    module.show_cam(str(XRAYS / "datalist.json"), each=1, output=str(small), **knobs)
    module.show_cam(str(XRAYS / "datalist.json"), each=2, output=str(large), **knobs)
    with Image.open(small) as one_row, Image.open(large) as two_rows:
        assert two_rows.height > 1.5 * one_row.height
        picture = np.asarray(one_row.convert("RGB")).astype(int)
    sixths = np.array_split(picture[:, : int(0.88 * picture.shape[1])], 6, axis=1)
    colour = [np.ptp(part, axis=-1).max() > 60 for part in sixths]
    assert colour == [False, True] * 3
    with pytest.raises(ValueError, match=r"--size is no value of inference\.json"):
        module.show_cam(str(XRAYS / "datalist.json"), size=3)
