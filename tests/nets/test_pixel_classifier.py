"""Tests of the pixel classifiers: against features put together at full size, and votes and divergences by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clinbundles.nets.pixel_classifier import (
    PixelClassifierEnsemble,
    hidden_widths,
    image_uncertainty,
    jensen_shannon,
    vote,
)

CHANNELS, SIZES = [6, 6, 4, 4, 2], [4, 4, 8, 8, 16]


def maps(n: int = 3) -> list[torch.Tensor]:
    return [torch.randn(n, c, s, s) for c, s in zip(CHANNELS, SIZES, strict=True)]


def materialised(ensemble: PixelClassifierEnsemble, features: list[torch.Tensor], number: int) -> torch.Tensor:
    """One network of the ensemble in the words of the paper, on all features of all pixels; logits (N, K, H, W)."""
    size = features[-1].shape[-2:]
    wide = torch.cat([F.interpolate(f, size=size, mode="bilinear", align_corners=False) for f in features], dim=1)
    x = wide.permute(0, 2, 3, 1).flatten(0, 2)
    for k, (weight, bias) in enumerate(zip(ensemble.weights, ensemble.biases, strict=True)):
        x = F.linear(x, weight[number], bias[number])
        if k < len(ensemble.norms):
            width = weight.shape[1]
            norm, own = ensemble.norms[k], slice(number * width, (number + 1) * width)
            single = nn.BatchNorm1d(width).train(norm.training)
            single.load_state_dict({n: v[own] if v.dim() else v for n, v in norm.state_dict().items()})
            x = F.relu(single(x))
    return x.unflatten(0, (len(wide), *size)).permute(0, 3, 1, 2)


def ensemble_with_statistics() -> PixelClassifierEnsemble:
    torch.manual_seed(0)
    ensemble = PixelClassifierEnsemble(CHANNELS, 3, n_classifiers=4, widths=[10, 5])
    for norm in ensemble.norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.data.uniform_(0.5, 2)
    return ensemble.eval()


def test_it_equals_networks_on_features_put_together() -> None:
    ensemble, features = ensemble_with_statistics(), maps()
    probabilities = ensemble(features)
    assert probabilities.shape == (4, 3, 3, 16, 16)
    for number in range(4):
        expected = materialised(ensemble, features, number).softmax(dim=1)
        assert torch.allclose(probabilities[number], expected, atol=1e-5)


def test_single_pixels_equal_whole_maps_at_corners_and_inside() -> None:
    ensemble, features = ensemble_with_statistics(), maps()
    image, row, column = (x.flatten() for x in torch.meshgrid(*map(torch.arange, (3, 16, 16)), indexing="ij"))
    logits = ensemble.forward_pixels(features, image, row, column)
    assert torch.allclose(
        logits.softmax(dim=2).permute(1, 2, 0), ensemble(features).permute(0, 2, 1, 3, 4).flatten(2), atol=1e-5
    )


def test_in_training_the_statistics_are_those_of_the_pixels_of_a_batch() -> None:
    ensemble, features = ensemble_with_statistics().train(), maps(1)
    image, row, column = (x.flatten() for x in torch.meshgrid(*map(torch.arange, (1, 16, 16)), indexing="ij"))
    expected = materialised(ensemble, features, 2)
    logits = ensemble.forward_pixels(features, image, row, column)
    assert torch.allclose(logits[:, 2].T.unflatten(1, (16, 16))[None], expected, atol=1e-4)


def test_stored_features_take_a_twentieth_of_the_memory_at_256_px() -> None:
    channels = [512] * 8 + [256, 256, 128, 128, 64, 64]
    sizes = [4, 4, 8, 8, 16, 16, 32, 32, 64, 64, 128, 128, 256, 256]
    assert sum(channels) == 4992
    stored = sum(c * s * s for c, s in zip(channels, sizes, strict=True))
    assert stored * 15 < sum(channels) * 256**2


def test_each_network_starts_from_weights_of_its_own_and_learns_alone() -> None:
    torch.manual_seed(0)
    ensemble = PixelClassifierEnsemble([4], 2, n_classifiers=3, widths=[6])
    assert not torch.equal(ensemble.weights[0][0], ensemble.weights[0][1])
    places = torch.zeros(8, dtype=torch.long), torch.arange(8), torch.arange(8)
    ensemble.forward_pixels([torch.randn(1, 4, 8, 8)], *places)[:, 1].square().sum().backward()
    gradients = ensemble.weights[0].grad
    assert gradients[1].abs().max() > 0
    assert gradients[[0, 2]].abs().max() == 0


def test_the_widths_of_the_paper_and_of_its_code() -> None:
    assert hidden_widths("paper", 4992) == (2496, 256, 128)
    assert hidden_widths("datasetgan_256_128", 4992) == (256, 128)
    assert hidden_widths("datasetgan_128_32", 480) == (128, 32)
    with pytest.raises(ValueError, match="widths is 'wide', expected paper, datasetgan_128_32, datasetgan_256_128 or"):
        hidden_widths("wide", 10)


def probabilities_of(choices: list[int], n_classes: int = 3) -> torch.Tensor:
    """Networks that are each sure of a class, (M, 1, K, 1, 1)."""
    return F.one_hot(torch.tensor(choices), n_classes).float()[:, None, :, None, None]


@pytest.mark.parametrize(
    ("choices", "winner"), [([2, 2, 1], 2), ([0, 0, 1], 0), ([1, 2, 1, 2], 1), ([2, 0, 2, 0], 0), ([2, 1, 0], 0)]
)
def test_most_votes_win_and_of_as_many_the_smaller_class(choices: list[int], winner: int) -> None:
    assert vote(probabilities_of(choices)).item() == winner


def test_networks_that_agree_have_no_divergence_and_those_that_do_not_have_its_entropy() -> None:
    soft = torch.softmax(torch.randn(1, 2, 3, 4, 4), dim=2).expand(5, -1, -1, -1, -1)
    assert jensen_shannon(soft).max() < 1e-6
    assert jensen_shannon(probabilities_of([0, 1, 2])).item() == pytest.approx(math.log(3), rel=1e-6)
    assert jensen_shannon(probabilities_of([0, 0, 1, 1])).item() == pytest.approx(math.log(2), rel=1e-6)


def test_the_uncertainty_of_an_image_is_that_of_its_worst_tenth() -> None:
    divergence = torch.arange(100.0).view(1, 10, 10)
    assert image_uncertainty(divergence).item() == pytest.approx(94.5)
