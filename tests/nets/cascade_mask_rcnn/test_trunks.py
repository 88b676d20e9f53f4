"""Trunks: their maps, their weights, and what is refused."""

from pathlib import Path

import pytest
import torch
from torchvision.models import get_model

from clinbundles.nets.cascade_mask_rcnn.trunks import BACKBONES, batch_norms, trunk_with_pyramid

SMALL = [name for name in BACKBONES if name != "resnest200"]


@pytest.mark.parametrize("backbone", SMALL)
def test_the_maps_have_strides_of_4_to_64(backbone: str) -> None:
    maps = trunk_with_pyramid(backbone, 24)(torch.rand(1, 3, 128, 64))
    assert {name: tuple(values.shape) for name, values in maps.items()} == {
        name: (1, 24, 128 // stride, 64 // stride)
        for name, stride in {"0": 4, "1": 8, "2": 16, "3": 32, "pool": 64}.items()
    }


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("with_last_layer", [True, False])
def test_the_weights_of_a_classifier_of_torchvision_fit(backbone: str, with_last_layer: bool, tmp_path: Path) -> None:
    weights = get_model(backbone, weights=None).state_dict()
    if not with_last_layer:
        weights = {name: value for name, value in weights.items() if name.split(".")[0] not in ("fc", "classifier")}
    torch.save(weights, tmp_path / "weights.pt")
    trunk = trunk_with_pyramid(backbone, 16, weights=tmp_path / "weights.pt")
    loaded = trunk.body.state_dict()
    prefix = "features." if backbone == "mobilenet_v2" else ""
    assert len(loaded) > 60
    assert all(torch.equal(value, weights[prefix + name]) for name, value in loaded.items())


def test_other_weights_are_refused(tmp_path: Path) -> None:
    torch.save(get_model("resnet50", weights=None).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="do not fit resnet18, the first is"):
        trunk_with_pyramid("resnet18", 16, weights=tmp_path / "weights.pt")
    with pytest.raises(FileNotFoundError, match="weights of the trunk"):
        trunk_with_pyramid("resnet18", 16, weights=tmp_path / "none.pt")


def test_an_unknown_backbone_is_named() -> None:
    with pytest.raises(ValueError, match="backbone is 'vgg', expected one of mobilenet_v2, resnet18"):
        trunk_with_pyramid("vgg", 16)


def test_all_batch_norms_are_listed() -> None:
    assert len(batch_norms(trunk_with_pyramid("resnet18", 16))) == 20
