import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from clinbundles.transforms.color_space import ColorSpace, ColorSpaced


def pixel(red: float, green: float, blue: float) -> torch.Tensor:
    return torch.tensor([red, green, blue], dtype=torch.float32).reshape(3, 1, 1)


def test_pure_red_has_hue_0_and_full_saturation_in_hsv() -> None:
    torch.testing.assert_close(ColorSpace("HSV")(pixel(1, 0, 0)).flatten(), torch.tensor([0.0, 1.0, 1.0]))


def test_white_is_the_lightest_and_colourless_in_luv() -> None:
    white, black = (ColorSpace("LUV")(pixel(v, v, v)).flatten() for v in (1.0, 0.0))
    assert white[0] == pytest.approx(1.0, abs=1e-3)
    assert black[0] == 0
    torch.testing.assert_close(white[1:], black[1:], atol=2e-3, rtol=0)


@pytest.mark.parametrize("color_space", ["RGB", "LUV", "HSV"])
def test_every_channel_stays_in_the_unit_interval_over_the_whole_cube(color_space: str) -> None:
    grid = torch.linspace(0, 1, 9)
    cube = torch.stack(torch.meshgrid(grid, grid, grid, indexing="ij")).reshape(3, 27, 27)
    before = cube.clone()
    converted = ColorSpace(color_space)(cube)
    assert converted.shape == cube.shape
    assert converted.min() >= 0
    assert converted.max() <= 1
    assert torch.equal(cube, before)


def test_meta_data_and_other_keys_are_kept() -> None:
    image = MetaTensor(torch.rand(3, 4, 4), meta={"filename_or_obj": "a.png"})
    item = ColorSpaced("image", "LUV")({"image": image, "label": 1})
    assert item["image"].meta["filename_or_obj"] == "a.png"
    assert item["image"].dtype == torch.float32
    assert item["label"] == 1


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(ValueError, match="'YUV'"):
        ColorSpace("YUV")
    with pytest.raises(ValueError, match=r"0 to 255, expected \[0, 1\]"):
        ColorSpace("HSV")(np.array([0, 255, 0], dtype=np.float32).reshape(3, 1, 1))
    with pytest.raises(ValueError, match=r"\(1, 4, 4\)"):
        ColorSpace("HSV")(torch.rand(1, 4, 4))
