"""The interpreter against ten plain networks on the stack of all features, which it never builds."""

import copy
import math
from collections.abc import Sequence

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clinbundles.nets.datasetgan.pixel_classifier import (
    EnsembleCrossEntropyLoss,
    PixelClassifierEnsemble,
    image_uncertainty,
    jensen_shannon,
    vote,
)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


def make_features(n_images: int, channels: Sequence[int], sizes: Sequence[int]) -> list[torch.Tensor]:
    return [torch.randn(n_images, c, size, size) for c, size in zip(channels, sizes, strict=True)]


def stacked(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """All features of all pixels (N * H * W, sum of C_i), as upstream keeps them."""
    size = features[-1].shape[-2:]
    resized = [F.interpolate(one.float(), size=size, mode="bilinear", align_corners=False) for one in features]
    return torch.cat(resized, dim=1).permute(0, 2, 3, 1).flatten(0, 2)


def plain_networks(ensemble: PixelClassifierEnsemble) -> list[nn.Sequential]:
    """The classifiers as ten networks of torch's own layers, with copies of their weights."""
    networks = []
    for index in range(ensemble.n_classifiers):
        layers: list[nn.Module] = []
        for weight, bias in zip(ensemble.weights, ensemble.biases, strict=True):
            linear = nn.Linear(weight.shape[2], weight.shape[1])
            linear.load_state_dict({"weight": weight[index], "bias": bias[index]})
            norm = nn.BatchNorm1d(weight.shape[1])
            layers += [linear, norm, nn.ReLU()] if ensemble.order == "linear_bn_relu" else [linear, nn.ReLU(), norm]
        networks.append(nn.Sequential(*layers[:-2]))
        for layer, norm in zip([m for m in networks[-1] if isinstance(m, nn.BatchNorm1d)], ensemble.norms, strict=True):
            places = slice(index * layer.num_features, (index + 1) * layer.num_features)
            state = {k: v[places] for k, v in norm.state_dict().items() if v.ndim}
            layer.load_state_dict(state, strict=False)
    return networks


def with_statistics(ensemble: PixelClassifierEnsemble) -> PixelClassifierEnsemble:
    for norm in ensemble.norms:
        for values in (norm.running_mean, norm.bias.data):
            values.normal_()
        for values in (norm.running_var, norm.weight.data):
            values.uniform_(0.5, 2)
    for bias in ensemble.biases:
        bias.data.normal_()
    return ensemble


CASES = {
    "a small generator": ([6, 6, 5, 5, 3, 2], [4, 4, 8, 8, 16, 16], [12, 7], "linear_bn_relu"),
    "upstream's order": ([6, 5, 4], [4, 8, 32], [12, 7], "linear_relu_bn"),
    "the paper's widths": ([8, 8, 4], [4, 8, 16], "paper", "linear_bn_relu"),
    "one level of the image's size": ([9], [8], [5], "linear_bn_relu"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("chunk_mb", [None, 1e-9])
def test_whole_images_are_classified_as_by_plain_networks_on_the_stack(case: str, chunk_mb: float | None) -> None:
    channels, sizes, widths, order = CASES[case]
    ensemble = PixelClassifierEnsemble(channels, 4, 3, widths, order=order, chunk_mb=chunk_mb)
    with_statistics(ensemble).train()  # whole images take the running statistics all the same
    features = make_features(2, channels, sizes)
    probabilities = ensemble(features)
    assert probabilities.shape == (3, 2, 4, sizes[-1], sizes[-1])
    for network, single in zip(plain_networks(ensemble), probabilities, strict=True):
        expected = network.eval()(stacked(features)).softmax(1)
        torch.testing.assert_close(single.permute(0, 2, 3, 1).flatten(0, 2), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [7, 600, 3000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_pixels_gathered_are_pixels_of_the_whole_images(count: int, dtype: torch.dtype) -> None:
    channels, sizes, *_ = CASES["a small generator"]
    ensemble = with_statistics(PixelClassifierEnsemble(channels, 4, 3, [12, 7])).eval()
    features = [feature.to(dtype) for feature in make_features(3, channels, sizes)]
    images, pixels = torch.randint(0, 3, (count,)), torch.randint(0, 256, (count,))
    logits = ensemble.forward_pixels(features, images, pixels)
    expected = ensemble(features).flatten(-2)[:, images, :, pixels].transpose(0, 1)
    torch.testing.assert_close(logits.softmax(-1), expected, atol=1e-4, rtol=0)
    last = [feature.contiguous(memory_format=torch.channels_last) for feature in features]
    torch.testing.assert_close(ensemble.forward_pixels(last, images, pixels), logits)


@pytest.mark.parametrize("order", ["linear_bn_relu", "linear_relu_bn"])
def test_a_step_of_training_is_that_of_plain_networks(order: str) -> None:
    channels, sizes, *_ = CASES["a small generator"]
    ensemble = PixelClassifierEnsemble(channels, 4, 3, [12, 7], order=order).double()
    networks = [network.double().train() for network in plain_networks(ensemble)]
    features = [feature.double() for feature in make_features(3, channels, sizes)]
    images, pixels = torch.randint(0, 3, (300,)), torch.randint(0, 256, (300,))
    labels = torch.randint(0, 4, (300,))
    loss = EnsembleCrossEntropyLoss()(ensemble.forward_pixels(features, images, pixels), labels)
    loss.backward()
    # In double precision, but for the resizing of the reference, which `stacked` does in single precision.
    rows = stacked(features).double()[images * 256 + pixels]
    losses = [F.cross_entropy(network(rows), labels) for network in networks]
    torch.testing.assert_close(loss, torch.stack(losses).mean(), atol=1e-5, rtol=0)
    torch.stack(losses).mean().backward()
    for index, network in enumerate(networks):
        linears = [layer for layer in network if isinstance(layer, nn.Linear)]
        for linear, weight in zip(linears, ensemble.weights, strict=True):
            assert weight.grad[index].abs().max() > 1e-4
            torch.testing.assert_close(weight.grad[index], linear.weight.grad, atol=1e-5, rtol=1e-3)
        batch_norms = [layer for layer in network if isinstance(layer, nn.BatchNorm1d)]
        for layer, norm in zip(batch_norms, ensemble.norms, strict=True):
            places = slice(index * layer.num_features, (index + 1) * layer.num_features)
            torch.testing.assert_close(norm.running_mean[places], layer.running_mean, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(norm.running_var[places], layer.running_var, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(norm.weight.grad[places], layer.weight.grad, atol=1e-5, rtol=1e-3)


def test_all_classifiers_at_once_and_one_after_the_other_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    channels, sizes, *_ = CASES["a small generator"]
    ensemble = with_statistics(PixelClassifierEnsemble(channels, 4, 3, [12, 7]))
    twin = copy.deepcopy(ensemble)
    monkeypatch.setattr(twin, "_parts", lambda _: [slice(0, 3)])  # as on a GPU
    features = make_features(2, channels, sizes)
    torch.testing.assert_close(ensemble(features), twin(features))
    images, pixels = torch.randint(0, 2, (300,)), torch.randint(0, 256, (300,))
    for one in (ensemble, twin):
        one.forward_pixels(features, images, pixels).square().mean().backward()
    for first, second in zip(ensemble.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, atol=1e-6, rtol=1e-3)
    for first, second in zip(ensemble.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(first, second)


def test_gradients_reach_features_of_every_level_in_whole_images() -> None:
    channels, sizes, *_ = CASES["a small generator"]
    ensemble = PixelClassifierEnsemble(channels, 4, 2, [12, 7])
    features = [feature.requires_grad_() for feature in make_features(1, channels, sizes)]
    ensemble(features)[:, :, 0].log().mean().backward()
    assert all(feature.grad is not None and feature.grad.abs().max() > 0 for feature in features)


def test_classifiers_start_apart_by_kaiming() -> None:
    ensemble = PixelClassifierEnsemble([400, 400], 4, 3, [300])
    first = ensemble.weights[0].detach()
    assert not torch.equal(first[0], first[1])
    for single in first:
        assert float(single.std()) == pytest.approx(math.sqrt(2 / 800), rel=0.02)


def test_presets_are_the_widths_of_the_paper_and_of_upstream() -> None:
    # StyleGAN2-ADA at 256 px: the constant and thirteen convolutions have 4992 channels.
    channels = [512] * 8 + [256, 256, 128, 128, 64, 64]
    with torch.device("meta"):
        paper = PixelClassifierEnsemble(channels, 7, 10, "paper")
        shapes = [tuple(weight.shape) for weight in paper.weights]
        assert shapes == [(10, 2496, 4992), (10, 256, 2496), (10, 128, 256), (10, 7, 128)]
        assert PixelClassifierEnsemble(channels, 7).widths == [128, 32]
        assert PixelClassifierEnsemble(channels, 34, widths="datasetgan_256_128").widths == [256, 128]


def test_features_of_thirty_images_take_a_fifteenth_of_the_stack() -> None:
    channels = [512] * 8 + [256, 256, 128, 128, 64, 64]
    sizes = [4, 4, 8, 8, 16, 16, 32, 32, 64, 64, 128, 128, 256, 256]
    with torch.device("meta"):
        features = [torch.empty(30, c, s, s, dtype=torch.float16) for c, s in zip(channels, sizes, strict=True)]
        stack = torch.empty(30 * 256 * 256, sum(channels), dtype=torch.float16)
    assert stack.nbytes == pytest.approx(19.6e9, rel=0.01)
    assert sum(feature.nbytes for feature in features) <= stack.nbytes / 15


class LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the size of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = result if isinstance(result, tuple | list) else [result]
        self.elements = max([self.elements, *(one.numel() for one in tensors if isinstance(one, torch.Tensor))])
        return result


def test_no_step_of_training_or_labelling_makes_a_tensor_of_the_stacks_size() -> None:
    channels, sizes = [32, 32, 32, 32, 16, 8], [4, 4, 8, 16, 32, 64]
    features = [feature.contiguous(memory_format=torch.channels_last) for feature in make_features(10, channels, sizes)]
    stack = 10 * 64 * 64 * sum(channels)
    ensemble = PixelClassifierEnsemble(channels, 4, 4, [64, 8], chunk_mb=0.05)
    with LargestTensor() as largest:
        logits = ensemble.forward_pixels(features, torch.randint(0, 10, (512,)), torch.randint(0, 4096, (512,)))
        logits.mean().backward()
    assert 0 < largest.elements <= stack / 15
    with LargestTensor() as largest:
        ensemble([feature[:1] for feature in features])
    # The answer itself, of four classifiers and classes, is the largest.
    assert largest.elements == 4 * 4 * 64 * 64


def test_a_batch_runs_under_autocast() -> None:
    channels, sizes, *_ = CASES["a small generator"]
    ensemble = PixelClassifierEnsemble(channels, 4, 2, [12, 7])
    features = make_features(2, channels, sizes)
    images, pixels = torch.randint(0, 2, (300,)), torch.randint(0, 256, (300,))
    exact = ensemble.forward_pixels(features, images, pixels)
    with torch.autocast("cpu", torch.bfloat16):
        rough = ensemble.forward_pixels(features, images, pixels).float()
    assert 0 < (rough - exact).abs().mean().item() < 0.02
    rough.mean().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in ensemble.parameters())


def one_hot(*votes: int, n_classes: int = 4) -> torch.Tensor:
    """Probabilities (n, 1, K, 1, 1) of classifiers that are each sure of a class."""
    return F.one_hot(torch.tensor(votes), n_classes).float()[:, None, :, None, None]


@pytest.mark.parametrize(
    ("votes", "winner"), [((3, 3, 1), 3), ((3, 1), 1), ((2, 0, 2, 0), 0), ((3, 2, 1), 1), ((2, 2, 2), 2)]
)
def test_the_majority_wins_and_ties_go_to_the_smallest_class(votes: tuple[int, ...], winner: int) -> None:
    labels = vote(one_hot(*votes))
    assert labels.dtype == torch.uint8
    assert labels.tolist() == [[[winner]]]


def test_votes_count_heads_and_not_probabilities() -> None:
    # Two are faintly for class 1, one is sure of class 0: the mean would be for 0.
    probabilities = torch.tensor([[0.45, 0.55], [0.45, 0.55], [1.0, 0.0]])[:, None, :, None, None]
    assert vote(probabilities).item() == 1


def test_classifiers_that_agree_have_no_divergence_however_unsure() -> None:
    single = torch.randn(2, 5, 3, 3).softmax(1)
    torch.testing.assert_close(
        jensen_shannon(single.expand(10, -1, -1, -1, -1)), torch.zeros(2, 3, 3), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(("votes", "divergence"), [((0, 1, 2, 3), math.log(4)), ((0, 0, 1, 1), math.log(2))])
def test_sure_classifiers_that_disagree_diverge_by_the_entropy_of_their_votes(
    votes: tuple[int, ...], divergence: float
) -> None:
    assert jensen_shannon(one_hot(*votes)).item() == pytest.approx(divergence)


def test_an_image_is_as_uncertain_as_the_mean_of_its_worst_tenth() -> None:
    divergence = torch.stack([torch.arange(100.0).view(10, 10), torch.zeros(10, 10)])
    assert image_uncertainty(divergence).tolist() == [pytest.approx(94.5), 0]
    assert image_uncertainty(divergence, share=1).tolist() == [pytest.approx(49.5), 0]
    assert image_uncertainty(torch.tensor([[[1.0, 3.0]]])).tolist() == [3]
    with pytest.raises(ValueError, match="share is 0, expected a number above 0"):
        image_uncertainty(divergence, share=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_channels": []}, "feature_channels is \\[\\]: expected 1 channel or more"),
        ({"feature_channels": [4, 0]}, "feature_channels is \\[4, 0\\]"),
        ({"n_classes": 1}, "n_classes is 1, expected 2 to 255"),
        ({"n_classes": 256}, "n_classes is 256, expected 2 to 255"),
        ({"n_classifiers": 0}, "n_classifiers is 0, expected 1 or more"),
        ({"widths": "datasetgan"}, "widths is 'datasetgan', expected a list or one of datasetgan_128_32"),
        ({"widths": [8, 0]}, "widths is \\[8, 0\\], expected whole numbers above 0"),
        ({"widths": []}, "widths is \\[\\], expected whole numbers above 0, at least one"),
        ({"order": "bn"}, "order is 'bn', expected one of linear_bn_relu, linear_relu_bn"),
        ({"chunk_mb": 0}, "chunk_mb is 0, expected a number above 0"),
    ],
)
def test_an_option_out_of_its_range_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PixelClassifierEnsemble(**{"feature_channels": [4, 4], "n_classes": 3} | options)


def test_features_of_another_generator_are_refused() -> None:
    ensemble = PixelClassifierEnsemble([4, 3], 3, 2, [5])
    with pytest.raises(ValueError, match=r"features of \[4\] channels, this interpreter reads \[4, 3\]"):
        ensemble(make_features(1, [4], [8]))
    with pytest.raises(ValueError, match="features of 1 and 2 images, expected as many a level"):
        ensemble([torch.zeros(1, 4, 4, 4), torch.zeros(2, 3, 8, 8)])
