"""StyleGAN2's networks in the published formulation, of plain convolutions: what ours are timed against.

They take our weights by name and give our images, scores and gradients. Here stands what remains of the published code
where its CUDA extensions do not compile: filters are two-dimensional and apart from the convolutions, zeros are put
between pixels in memory, and scale, noise, bias, leaky ReLU and gain are a step each.

Source: Karras et al., Analyzing and improving the image quality of StyleGAN, 2020, section 2.2 and appendix B.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from clinbundles.nets.datasetgan.discriminator import Discriminator, ResidualBlock, minibatch_deviation
from clinbundles.nets.datasetgan.generator import Generator, SynthesisBlock
from clinbundles.nets.datasetgan.layers import EqualizedConv2d, EqualizedLinear, StyledConv2d, ToImage

TAPS = (1.0, 3.0, 3.0, 1.0)
SLOPE, GAIN = 0.2, math.sqrt(2)


def up_fir_down(
    x: torch.Tensor, *, up: int = 1, down: int = 1, padding: tuple[int, int], gain: float = 1.0
) -> torch.Tensor:
    """Put zeros between the pixels, pad, filter, and keep every ``down``-th pixel.

    Args:
        x: (N, C, H, W).
        up: pixels that each pixel becomes along an axis.
        down: step between the pixels that are kept.
        padding: zeros before and behind each axis in px.
        gain: factor on the result.

    Returns:
        (N, C, H', W').
    """
    n, channels, height, width = x.shape
    x = F.pad(x.reshape(n, channels, height, 1, width, 1), (0, up - 1, 0, 0, 0, up - 1))
    x = F.pad(x.reshape(n, channels, height * up, width * up), (*padding, *padding))
    taps = torch.tensor(TAPS, dtype=x.dtype, device=x.device)
    kernel = torch.outer(taps, taps) * (gain / taps.sum() ** 2)
    return F.conv2d(x, kernel.expand(channels, 1, 4, 4), groups=channels)[:, :, ::down, ::down]


def bias_act(x: torch.Tensor, bias: torch.Tensor | None, *, activate: bool, gain: float = 1.0) -> torch.Tensor:
    """Add a bias, apply leaky ReLU, multiply by the gain: each on its own, (N, C, H, W) or (N, C)."""
    if bias is not None:
        x = x + bias.to(x.dtype).reshape(1, -1, *[1] * (x.ndim - 2))
    if activate:
        x = F.leaky_relu(x, SLOPE)
        gain *= GAIN
    return x if gain == 1 else x * gain


def modulated_convolution(
    x: torch.Tensor, weight: torch.Tensor, style: torch.Tensor, *, up: bool, demodulate: bool, grouped: bool
) -> torch.Tensor:
    """Convolve each image by weights of its own.

    Args:
        x: (N, in_channels, H, W).
        weight: (out_channels, in_channels, K, K).
        style: factors on the input channels (N, in_channels).
        up: double the size.
        demodulate: divide the weights of each output channel by their norm.
        grouped: weights for each image and one convolution of N groups; else one set of weights, with factors on the
            images before and behind it.

    Returns:
        (N, out_channels, H, W), or double that size.
    """
    n, _, height, width = x.shape
    own = weight[None] * style[:, None, :, None, None]
    norm = (own.square().sum(dim=(2, 3, 4)) + 1e-8).rsqrt() if demodulate else None
    if grouped:
        if norm is not None:
            own = own * norm[:, :, None, None, None]
        y = _convolve(x.reshape(1, -1, height, width), own.to(x.dtype), up).reshape(n, len(weight), *_size(x, up))
    else:
        y = _convolve(x * style.to(x.dtype)[:, :, None, None], weight[None].to(x.dtype), up)
        y = y if norm is None else y * norm.to(x.dtype)[:, :, None, None]
    return up_fir_down(y, padding=(1, 1), gain=4) if up else y


def _size(x: torch.Tensor, up: bool) -> tuple[int, int]:
    height, width = x.shape[2:]
    return (2 * height + 1, 2 * width + 1) if up else (height, width)


def _convolve(x: torch.Tensor, weights: torch.Tensor, up: bool) -> torch.Tensor:
    """Convolve by weights (groups, out, in, K, K)."""
    groups, size = len(weights), weights.shape[-1]
    if up:
        turned = weights.flip(3, 4).transpose(1, 2).flatten(0, 1)
        return F.conv_transpose2d(x, turned, stride=2, groups=groups)
    return F.conv2d(x, weights.flatten(0, 1), padding=size // 2, groups=groups)


def _lay_out_plainly(network: nn.Module) -> None:
    """Keep kernels with their last axis densest, as the published code does: ours would slow its convolutions down."""
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()


class ReferenceGenerator(Generator):
    """The generator, its weights of the same names, in the published formulation.

    Args:
        grouped: one convolution of N groups, as published; else factors before and behind a plain one, as the authors'
            code of 2020 (StyleGAN2-ADA) trains.
        options: as the generator's.
    """

    def __init__(self, *, grouped: bool = True, **options: Any) -> None:
        super().__init__(**options)
        _lay_out_plainly(self)
        self.grouped = grouped

    def synthesize(self, ws: torch.Tensor, *, noise: str = "random") -> torch.Tensor:
        """Make images (N, image_channels, image_size, image_size) from ws (N, n_ws, w_dim)."""
        latents = iter(ws.unbind(dim=1))
        x = image = torch.empty(0)
        latent = next(latents)
        for block in self.blocks:
            assert isinstance(block, SynthesisBlock)
            if block.conv0 is None:
                assert block.const is not None
                x = block.const[None].repeat(len(ws), 1, 1, 1)
            else:
                x = self._styled(block.conv0, x, latent, noise)
                latent = next(latents)
            x = self._styled(block.conv1, x, latent, noise)
            latent = next(latents)
            part = self._to_image(block.to_image, x, latent)
            image = up_fir_down(image, up=2, padding=(2, 1), gain=4) + part if len(image) else part
        return image

    def _styled(self, layer: StyledConv2d, x: torch.Tensor, w: torch.Tensor, noise: str) -> torch.Tensor:
        weight = layer.weight / math.sqrt(layer.weight[0].numel())
        y = modulated_convolution(
            x, weight, _linear(layer.affine, w), up=layer.up, demodulate=True, grouped=self.grouped
        )
        if noise == "random":
            y = y + torch.randn(len(y), 1, *y.shape[2:], dtype=y.dtype, device=y.device) * layer.noise_strength.to(
                y.dtype
            )
        else:
            y = y + (layer.noise * layer.noise_strength).to(y.dtype)
        return bias_act(y, layer.bias, activate=True)

    def _to_image(self, layer: ToImage, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        style = _linear(layer.affine, w) / math.sqrt(layer.weight.shape[1])
        weight = layer.weight[:, :, None, None]
        y = modulated_convolution(x, weight, style, up=False, demodulate=False, grouped=self.grouped)
        return bias_act(y, layer.bias, activate=False)


class ReferenceDiscriminator(Discriminator):
    """The discriminator, its weights of the same names and its options, in the published formulation."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        _lay_out_plainly(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Score images (N, image_channels, H, W) in [-1, 1] as (N, 1)."""
        x = _plain(self.from_image, images)
        for block in self.blocks:
            assert isinstance(block, ResidualBlock)
            x = _plain(block.skip, x) + _plain(block.conv1, _plain(block.conv0, x))
        x = _plain(self.conv, minibatch_deviation(x, self.group_size))
        return _linear(self.score, _linear(self.linear, x.flatten(1)))


def _plain(layer: EqualizedConv2d, x: torch.Tensor) -> torch.Tensor:
    size = layer.weight.shape[-1]
    weight = (layer.weight / math.sqrt(layer.weight[0].numel())).to(x.dtype)
    if not layer.down:
        x = F.conv2d(x, weight, padding=size // 2)
    elif size == 1:
        x = F.conv2d(up_fir_down(x, down=2, padding=(1, 1)), weight)
    else:
        x = F.conv2d(up_fir_down(x, padding=(2, 2)), weight, stride=2)
    return bias_act(x, layer.bias, activate=layer.activate, gain=layer.gain)


def _linear(layer: EqualizedLinear, x: torch.Tensor) -> torch.Tensor:
    weight = layer.weight * (layer.lr_multiplier / math.sqrt(layer.weight.shape[1]))
    bias = layer.bias * layer.lr_multiplier
    if not layer.activate:
        return torch.addmm(bias, x, weight.T)
    return bias_act(x @ weight.T, bias, activate=True)
