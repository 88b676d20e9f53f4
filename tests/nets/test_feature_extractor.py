from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v2

from clinbundles.nets.feature_extractor import feature_extractor, features_of, in_colour

# The files that exist are TorchScript, which torch is giving up.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return mobilenet_v2(weights=None).eval()


@pytest.fixture(scope="module")
def weights(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file without the classifier, as convert-weights writes it."""
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.pt"
    torch.save({k: v for k, v in network.state_dict().items() if not k.startswith("classifier")}, path)
    return path


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 1, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_features_are_the_means_of_the_last_maps_of_images_resized_and_normalised(
    weights: Path, network: nn.Module, images: torch.Tensor
) -> None:
    extractor = feature_extractor(weights)
    unit = F.interpolate((images + 1) / 2, (224, 224), mode="bilinear", antialias=True).repeat(1, 3, 1, 1)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = network.features((unit - mean[:, None, None]) / std[:, None, None]).mean((2, 3))
    assert extractor.name == "MobileNetV2"
    assert torch.allclose(features_of(extractor, images, batch_size=2), expected, atol=1e-5)
    assert torch.allclose(features_of(extractor, images.expand(-1, 3, -1, -1)), expected, atol=1e-5)


def test_an_extractor_is_frozen_and_stays_in_evaluation_mode(weights: Path, images: torch.Tensor) -> None:
    extractor = feature_extractor(weights)
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    assert not any(module.training for module in extractor.modules())
    assert torch.equal(features_of(extractor, images), features_of(extractor, images))


class Script(nn.Module):
    """What StyleGAN2-ADA's Inception looks like from outside."""

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        if not return_features or img.dtype != torch.uint8:
            return torch.zeros(1, 1)
        return img.float().mean((2, 3))


class PlainScript(nn.Module):
    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return img.float().amax((2, 3))


@pytest.mark.parametrize(("module", "expected"), [(Script(), 127.5), (PlainScript(), 255.0)])
def test_a_torchscript_gets_bytes_and_is_asked_for_features(module: nn.Module, expected: float, tmp_path: Path) -> None:
    torch.jit.script(module).save(str(tmp_path / "inception.pt"))
    extractor = feature_extractor(tmp_path / "inception.pt", name="Inception")
    images = torch.ones(2, 1, 8, 8)
    images[..., :4] = -1
    assert extractor.name == "Inception"
    assert torch.allclose(features_of(extractor, images), torch.full((2, 3), expected))


def test_without_weights_or_with_others_there_is_no_extractor(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="feature_weights is missing: random features of MobileNetV2 measure nothing"):
        feature_extractor(None)
    with pytest.raises(ValueError, match="features is 'VGG', expected MobileNetV2 or Inception"):
        feature_extractor(weights, name="VGG")
    with pytest.raises(FileNotFoundError, match=r"gone\.pt"):
        feature_extractor(tmp_path / "gone.pt", name="Inception")
    with pytest.raises(ValueError, match="no TorchScript"):
        feature_extractor(weights, name="Inception")
    content = torch.load(weights, weights_only=True)
    torch.save(content | {"features.0.0.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="1 of 312 weights do not fit MobileNetV2"):
        feature_extractor(tmp_path / "other.pt")


def test_code_is_not_run_where_weights_are_expected(tmp_path: Path) -> None:
    torch.jit.script(PlainScript()).save(str(tmp_path / "script.pt"))
    with pytest.raises(ValueError, match=r"script\.pt: not a file of weights"):
        feature_extractor(tmp_path / "script.pt")


def test_two_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 2, 8, 8\), expected"):
        in_colour(torch.zeros(1, 2, 8, 8))
