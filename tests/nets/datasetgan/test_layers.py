"""Tests of StyleGAN2's layers: against weights that are modulated for each image, as the paper writes them."""

import math

import pytest
import torch
from torch.nn import functional as F

from clinbundles.nets.datasetgan.layers import EqualizedConv2d, EqualizedLinear, StyledConv2d, ToImage
from clinbundles.nets.datasetgan.resampling import low_pass


def paper_convolution(layer: StyledConv2d, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Equations 1 and 3 of Karras et al. 2020: weights of each image modulated, then demodulated, in N groups."""
    n, channels, height, width = x.shape
    out = layer.weight.shape[0]
    style = layer.affine(w)
    weight = layer.weight[None] * style[:, None, :, None, None] / math.sqrt(channels * 9)
    weight = weight / (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).sqrt()
    if layer.up:
        turned = weight.flip(3, 4).transpose(1, 2).reshape(n * channels, out, 3, 3)
        wide = F.conv_transpose2d(x.reshape(1, n * channels, height, width), turned, stride=2, groups=n)
        y = low_pass(wide.reshape(n, out, 2 * height + 1, 2 * width + 1), padding=1, gain=4)
    else:
        flat = x.reshape(1, n * channels, height, width)
        y = F.conv2d(flat, weight.reshape(n * out, channels, 3, 3), padding=1, groups=n).reshape(n, out, height, width)
    y = y + layer.noise * layer.noise_strength + layer.bias[:, None, None]
    return F.leaky_relu(y, 0.2) * math.sqrt(2)


@pytest.mark.parametrize("up", [False, True])
def test_scaled_images_are_modulated_weights(up: bool) -> None:
    torch.manual_seed(0)
    layer = StyledConv2d(6, 5, 7, 16 if up else 8, up=up)
    layer.noise_strength.data.fill_(0.3)
    layer.bias.data.normal_()
    layer.affine.weight.data.mul_(3)
    x, w = torch.randn(3, 6, 8, 8), torch.randn(3, 7)
    assert torch.allclose(layer(x, w, "const"), paper_convolution(layer, x, w), atol=2e-5)


def test_demodulation_takes_the_size_of_the_style_away() -> None:
    layer = StyledConv2d(6, 5, 7, 8)
    x, w = torch.randn(2, 6, 8, 8), torch.randn(2, 7)
    first = layer(x, w, "none")
    layer.affine.weight.data.mul_(10)
    layer.affine.bias.data.mul_(10)
    assert torch.allclose(layer(x, w, "none"), first, atol=1e-4)


def test_adain_gives_each_channel_the_mean_and_deviation_of_its_style() -> None:
    layer = StyledConv2d(6, 5, 7, 8, style="adain")
    w = torch.randn(2, 7)
    y = layer(torch.randn(2, 6, 8, 8), w, "none")
    scale, shift = layer.affine(w).chunk(2, dim=1)
    assert torch.allclose(y.mean(dim=(2, 3)), shift, atol=1e-4)
    assert torch.allclose(y.std(dim=(2, 3), unbiased=False), scale.abs(), atol=1e-3)


def test_random_noise_differs_and_constant_noise_does_not() -> None:
    layer = StyledConv2d(3, 4, 5, 8)
    layer.noise_strength.data.fill_(1.0)
    x, w = torch.randn(1, 3, 8, 8), torch.randn(1, 5)
    assert not torch.equal(layer(x, w, "random"), layer(x, w, "random"))
    assert torch.equal(layer(x, w, "const"), layer(x, w, "const"))
    assert not torch.equal(layer(x, w, "const"), layer(x, w, "none"))
    with pytest.raises(ValueError, match="noise is 'often', expected random, const or none"):
        layer(x, w, "often")


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(ValueError, match="style is 'spade', expected modulation or adain"):
        StyledConv2d(3, 4, 5, 8, style="spade")  # type: ignore[arg-type]


def test_equalized_layers_keep_unit_variance_at_any_width() -> None:
    torch.manual_seed(0)
    for width in (16, 256):
        assert EqualizedLinear(width, 512)(torch.randn(64, width)).var().item() == pytest.approx(1, rel=0.15)
        plain = EqualizedConv2d(width, 32, 3, activate=False)
        assert plain(torch.randn(4, width, 16, 16))[..., 1:-1, 1:-1].var().item() == pytest.approx(1, rel=0.15)


def test_a_learning_rate_multiplier_scales_the_step_and_not_the_output() -> None:
    torch.manual_seed(0)
    x = torch.randn(128, 64)
    layer = EqualizedLinear(64, 64, lr_multiplier=0.01, activate=True)
    assert layer(x).square().mean().item() == pytest.approx(1, rel=0.2)
    before = layer(x)
    layer.weight.data.add_(1)
    changed = (layer(x) - before).abs().mean()
    slow = EqualizedLinear(64, 64, activate=True)
    before = slow(x)
    slow.weight.data.add_(1)
    assert changed.item() == pytest.approx(0.01 * (slow(x) - before).abs().mean().item(), rel=0.3)


def test_going_down_is_a_low_pass_before_the_stride() -> None:
    layer = EqualizedConv2d(3, 4, 3, down=True, activate=False)
    x = torch.randn(2, 3, 8, 8)
    padded = low_pass(x, padding=2)
    assert torch.allclose(layer(x), F.conv2d(padded, layer.weight / math.sqrt(27), stride=2), atol=1e-6)
    assert layer(x).shape == (2, 4, 4, 4)


def test_a_kernel_of_one_goes_down_by_the_low_pass_at_every_second_pixel() -> None:
    layer = EqualizedConv2d(3, 4, 1, down=True, bias=False, activate=False, gain=0.5)
    x = torch.randn(2, 3, 8, 8)
    expected = F.conv2d(low_pass(x, padding=1), layer.weight / math.sqrt(3) / 2, stride=2)
    assert torch.allclose(layer(x), expected, atol=1e-6)


def test_channels_lie_next_to_each_other_behind_an_input_of_one_channel_too() -> None:
    x = torch.randn(2, 1, 8, 8)
    layers = [EqualizedConv2d(1, 4, 1), EqualizedConv2d(4, 6, 3), EqualizedConv2d(6, 8, 3, down=True)]
    for layer in layers:
        x = layer(x)
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert not x.is_contiguous()


def test_the_image_is_a_modulated_sum_of_channels() -> None:
    layer = ToImage(6, 1, 7)
    x, w = torch.randn(2, 6, 4, 4), torch.randn(2, 7)
    expected = torch.einsum("nchw,oc,nc->nohw", x, layer.weight, layer.affine(w)) / math.sqrt(6)
    assert torch.allclose(layer(x, w), expected, atol=1e-5)
