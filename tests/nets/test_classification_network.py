import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from clinbundles.nets.classification_network import classification_network
from clinbundles.nets.pneumonia_cnn import PneumoniaCNN


def on_paper(name: str, num_classes: int = 3, **options: Any) -> nn.Module:
    """The network without the memory and time of its weights."""
    with torch.device("meta"):
        return classification_network(name, num_classes, **options)


def test_the_own_network_takes_all_its_options() -> None:
    network = on_paper("PneumoniaCNN", 2, channels=[4, 6], dense_units=5, dropout=0.25, image_size=32)
    assert isinstance(network, PneumoniaCNN)
    assert network.dense.linear.weight.shape == (5, 6 * 8 * 8)
    assert network.dense.dropout.p == 0.25
    assert network.head.out_features == 2


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("resnet50", "fc"),
        ("densenet121", "classifier"),
        ("mobilenet_v3_small", "classifier.3"),
        ("vgg11", "classifier.6"),
        ("efficientnet_b0", "classifier.1"),
        ("convnext_tiny", "classifier.2"),
        ("vit_b_16", "heads.head"),
        ("swin_t", "head"),
    ],
)
def test_a_network_of_torchvision_keeps_its_weights_names_but_for_the_last_layer(name: str, last: str) -> None:
    network = on_paper(name)
    with torch.device("meta"):
        published = get_model(name, weights=None)
    assert network.get_submodule(last).out_features == 3
    shapes, expected = ({k: v.shape for k, v in n.state_dict().items()} for n in (network, published))
    assert {k for k in expected if shapes.get(k) != expected[k]} == {f"{last}.weight", f"{last}.bias"}
    assert shapes.keys() == expected.keys()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "timm/tf_efficientnet_lite0", "PneumoniaCNN"])
def test_a_small_image_gets_a_logit_a_class_in_training_and_after(name: str) -> None:
    network = classification_network(name, 4, image_size=32, dense_units=8)
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert network(image).shape == network.eval()(image).shape == (2, 4)


def test_the_seed_decides_the_weights() -> None:
    def first() -> torch.Tensor:
        return next(classification_network("mobilenet_v3_small", 3).parameters())

    torch.manual_seed(1)
    one = first()
    torch.manual_seed(1)
    assert torch.equal(one, first())
    assert not torch.equal(one, first())


def test_a_network_of_timm_is_called_as_timm_calls_it() -> None:
    assert on_paper("timm/tf_efficientnet_lite0").classifier.out_features == 3
    with pytest.raises(ValueError, match=r"'timm/nosuchnet': timm has no network nosuchnet\."):
        on_paper("timm/nosuchnet")


@pytest.mark.parametrize(
    "name",
    [
        "nosuchnet",
        "ResNet",
        "",
        "pneumoniacnn",
        "fasterrcnn_resnet50_fpn",
        "maskrcnn_resnet50_fpn_v2",
        "ssd300_vgg16",
        "deeplabv3_resnet50",
        "lraspp_mobilenet_v3_large",
        "raft_small",
        "r3d_18",
        "quantized_resnet50",
    ],
)
def test_unknown_names_and_networks_that_classify_no_image_are_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # torchvision fetches the backbones of some unasked
    with pytest.raises(ValueError, match=f"^network_name is '{name}': expected PneumoniaCNN, a classifier of torchv"):
        on_paper(name)
    assert not list(tmp_path.iterdir())


def test_a_network_without_a_last_linear_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'squeezenet1_1': its last layer classifier\.3 is no linear one"):
        on_paper("squeezenet1_1")


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_that_train_on_several_outputs_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}': it has more than one output in training"):
        on_paper(name)


def test_a_network_that_is_none_of_timm_starts_without_it() -> None:
    code = (
        "import sys; from clinbundles.nets.classification_network import classification_network as make; "
        "make('PneumoniaCNN', 3); sys.exit('timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0
