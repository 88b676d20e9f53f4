from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.data import Dataset, MetaTensor
from monai.transforms import RandGaussianNoised

from clinbundles.engines.training.device_augmentation import BatchAugmentation, check_device_options
from clinbundles.engines.training.epoch_seed import EpochSeed
from clinbundles.scripts.bundle import open_configs, read_configs
from clinbundles.transforms.batch_augmentation import RandBatchFlipd

BUNDLE = Path(__file__).parents[3] / "bundles" / "gaze_polyp_segmentation"


def test_image_and_label_come_back_as_plain_tensors_and_go_through_the_transforms() -> None:
    batch = {"image": MetaTensor(torch.rand(2, 3, 4, 4)), "label": torch.ones(2, 1, 4, 4), "name": ["a", "b"]}
    prepare = BatchAugmentation([lambda b: b | {"image": b["image"] + b["label"]}])
    image, label = prepare(batch, "cpu")
    assert type(image) is torch.Tensor
    assert torch.equal(image, batch["image"].as_tensor() + 1)
    assert torch.equal(label, batch["label"])


def test_the_epochs_seed_reaches_the_transforms_of_batches() -> None:
    def drawn(epoch: int) -> list[float]:
        prepare = BatchAugmentation([RandGaussianNoised("image", prob=1.0), RandBatchFlipd("image")])
        engine: Any = SimpleNamespace(
            state=SimpleNamespace(epoch=epoch), data_loader=SimpleNamespace(dataset=Dataset([])), prepare_batch=prepare
        )
        EpochSeed(1)(engine)
        return prepare({"image": torch.arange(64.0).reshape(4, 1, 4, 4), "label": torch.zeros(4, 1, 4, 4)})[0].tolist()

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"augment_on": "gpu"}, "--augment_on is 'gpu', expected cpu or device"),
        ({"augment_on": "device", "allow_missing_gaze": True}, "cannot go with --allow_missing_gaze, which takes"),
        ({"augment_on": "device", "color_space": "LUV"}, "cannot go with --color_space other than RGB, which takes"),
    ],
)
def test_the_config_refuses_what_a_batch_on_the_device_cannot_do(options: dict[str, Any], sentence: str) -> None:
    parser = open_configs(BUNDLE, ["train"], **options)
    with pytest.raises(Exception, match="check_device_options") as caught:
        parser.get_parsed_content("place")
    assert sentence in str(caught.value.__cause__ or caught.value.__context__)


def test_the_cpu_takes_every_option() -> None:
    check_device_options("cpu", allow_missing_gaze=True, color_space_is_not_RGB=True)


def test_both_places_draw_from_the_same_ranges() -> None:
    content = read_configs(BUNDLE, ["train"])
    per_image = {step["_target_"].rpartition(".")[2]: step for step in content["random_transforms"]}
    batch = {step["_target_"].rpartition(".")[2]: step for step in content["batch_transforms"]}
    blur, batch_blur = (each["RandAttentionGaussianBlurd"] for each in (per_image, batch))
    assert batch_blur == {key: value for key, value in blur.items() if key != "allow_missing_attention"}
    for factor in ("brightness", "contrast", "saturation", "hue"):
        assert per_image["RandTorchVisiond"][factor] == batch["RandBatchColorJitterd"][factor]
    flips = [[(s["keys"], s["prob"], s["spatial_axis"]) for s in content[n] if "Flip" in s["_target_"]]
             for n in ("random_transforms", "batch_transforms")]  # fmt: skip
    assert flips[0] == flips[1]
    assert len(flips[0]) == 2
