import pytest
import torch
from monai.data import MetaTensor

from clinbundles.transforms.intensity_range import IntensityRangeCheckd

CHECK = IntensityRangeCheckd("image")


@pytest.mark.parametrize(
    "values", [[0, 255], [0.0, 254.6], [0, 0], [0, 1], [3, 3]], ids=["full", "real", "black", "nearly black", "even"]
)
def test_images_in_the_range_pass_as_float32(values: list[float]) -> None:
    image = torch.tensor(values).view(1, 1, 2)
    out = CHECK({"image": image, "label": 1})
    assert out["image"].dtype == torch.float32
    assert torch.equal(out["image"], image.float())
    assert out["label"] == 1


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([-1024.0, 600.0], "its values are -1024 to 600"),
        ([0, 4095], "its values are 0 to 4095"),
        ([0.0, 0.7], "its values are fractions, 0 to 0.7"),
        ([0.0, float("nan")], "its values are nan to nan"),
        ([0.0, float("inf")], "its values are 0 to inf"),
    ],
)
def test_values_of_another_range_are_refused_with_their_file(values: list[float], problem: str) -> None:
    image = MetaTensor(torch.tensor(values).view(1, 1, 2), meta={"filename_or_obj": "a.dcm"})
    with pytest.raises(ValueError, match=rf"a\.dcm: {problem}, and the network was trained on 0 to 255"):
        CHECK({"image": image})
    with pytest.raises(ValueError, match=f"image: {problem}"):
        CHECK({"image": torch.tensor(values).view(1, 1, 2)})


def test_meta_data_stay_and_the_input_is_left() -> None:
    item = {"image": MetaTensor(torch.tensor([[[0, 9]]], dtype=torch.uint8), meta={"filename_or_obj": "a.png"})}
    out = CHECK(item)
    assert out["image"].meta["filename_or_obj"] == "a.png"
    assert item["image"].dtype == torch.uint8
