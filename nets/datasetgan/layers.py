"""Layers of StyleGAN2: weights scaled at run time, convolutions modulated by a style."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from .resampling import halve, low_pass

SLOPE = 0.2
# Keeps the variance after a leaky ReLU. It passes through the activation, so it is put on what comes before.
GAIN = math.sqrt(2)


def _kernels(out_channels: int, in_channels: int, size: int) -> nn.Parameter:
    """Draw kernels (out_channels, in_channels, size, size) in the layout of the images, which saves copies."""
    kernels = torch.randn(out_channels, in_channels, size, size)
    return nn.Parameter(kernels.contiguous(memory_format=torch.channels_last))


class EqualizedLinear(nn.Module):
    """Linear layer whose weights are of unit variance and scaled at run time.

    Args:
        in_features: of the input.
        out_features: of the output.
        bias: value that the bias starts from.
        lr_multiplier: learning rate of this layer, as part of the optimizer's.
        activate: leaky ReLU of slope 0.2 and gain √2 behind it.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: float = 0.0,
        lr_multiplier: float = 1.0,
        activate: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias / lr_multiplier))
        self.lr_multiplier = lr_multiplier
        self.activate = activate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, in_features) to (N, out_features)."""
        gain = self.lr_multiplier * (GAIN if self.activate else 1.0)
        y = F.linear(x, self.weight * (gain / math.sqrt(self.weight.shape[1])), self.bias * gain)
        return F.leaky_relu(y, SLOPE) if self.activate else y


class EqualizedConv2d(nn.Module):
    """Convolution whose weights are of unit variance and scaled at run time, of the same size or half of it.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: odd.
        down: halve the size: a low-pass, then a stride of 2.
        bias: whether there is one.
        activate: leaky ReLU of slope 0.2 and gain √2 behind it.
        gain: further factor on the result.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        down: bool = False,
        bias: bool = True,
        activate: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = _kernels(out_channels, in_channels, kernel_size)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.down = down
        self.activate = activate
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W), or half of that size."""
        _, in_channels, size, _ = self.weight.shape
        gain = self.gain * (GAIN if self.activate else 1.0)
        weight = self.weight * (gain / math.sqrt(in_channels * size**2))
        bias = None if self.bias is None else self.bias * gain
        if size == 1:
            # A linear map of each pixel's channels, which lie next to each other: a convolution of one input channel
            # would not keep that layout.
            pixels = (halve(x) if self.down else x).permute(0, 2, 3, 1)
            y = F.linear(pixels, weight[:, :, 0, 0], bias).permute(0, 3, 1, 2)
            return F.leaky_relu(y, SLOPE) if self.activate else y  # in place, a view would cost its gradient a copy
        if self.down:
            y = F.conv2d(low_pass(x, padding=1 + size // 2), weight, bias, stride=2)
        else:
            y = F.conv2d(x, weight, bias, padding=size // 2)
        return F.leaky_relu_(y, SLOPE) if self.activate else y


class StyledConv2d(nn.Module):
    """Convolution whose input channels a style scales, then noise, a bias and a leaky ReLU (Karras et al. 2020).

    The style scales the image, and the demodulation the result: with one set of weights for all images this is the
    same number as modulated weights for each, and a plain convolution instead of one in N groups.
    With ``style="adain"`` the style acts on the normalised result instead, as in StyleGAN (Karras et al. 2019).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        w_dim: size of the latent w.
        size: side of the result in px; the constant noise is of this size.
        up: double the size.
        style: "modulation" or "adain".
    """

    noise: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        size: int,
        *,
        up: bool = False,
        style: Literal["modulation", "adain"] = "modulation",
    ) -> None:
        super().__init__()
        if style not in ("modulation", "adain"):
            raise ValueError(f"style is {style!r}, expected modulation or adain.")
        self.weight = _kernels(out_channels, in_channels, 3)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(size, size))
        self.adain = style == "adain"
        self.affine = EqualizedLinear(w_dim, in_channels if not self.adain else 2 * out_channels, bias=1.0)
        if self.adain:
            self.affine.bias.data[out_channels:] = 0
        self.up = up

    def forward(self, x: torch.Tensor, w: torch.Tensor, noise: str = "random") -> torch.Tensor:
        """Apply the layer.

        Args:
            x: (N, in_channels, H, W).
            w: latent (N, w_dim).
            noise: "random", "const" (always the same) or "none".

        Returns:
            (N, out_channels, H, W), or double that size.
        """
        weight = self.weight / math.sqrt(self.weight[0].numel())
        style = self.affine(w)
        bias = self.bias * GAIN
        # Behind the convolution one map is made and then changed in place: maps cost more to move than to compute.
        if self.adain:
            y = self._convolve(x, weight)
            y = torch.add(bias.to(y.dtype)[:, None, None], y, alpha=GAIN)
        else:
            energy = F.linear(style.square(), weight.square().sum(dim=(2, 3)))
            scale = (energy + 1e-8).rsqrt() * GAIN
            y = self._convolve(x * style[:, :, None, None].to(x.dtype), weight)
            y = torch.addcmul(bias.to(y.dtype)[:, None, None], y, scale[:, :, None, None].to(y.dtype))
        if noise == "random":
            sample = torch.randn(len(y), 1, *y.shape[2:], device=y.device, dtype=y.dtype)
            y += sample * (self.noise_strength * GAIN).to(y.dtype)
        elif noise == "const":
            y += (self.noise * self.noise_strength * GAIN).to(y.dtype)
        elif noise != "none":
            raise ValueError(f"noise is {noise!r}, expected random, const or none.")
        y = F.leaky_relu_(y, SLOPE)
        if self.adain:
            scale, shift = style[:, :, None, None].to(y.dtype).chunk(2, dim=1)
            y = F.instance_norm(y, eps=1e-8) * scale + shift
        return y

    def _convolve(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if not self.up:
            return F.conv2d(x, weight, padding=1)
        # The transpose of a correlation runs over the kernel backwards: turned here, both cases use the same kernel.
        wide = F.conv_transpose2d(x, weight.flip(2, 3).transpose(0, 1), stride=2)
        return low_pass(wide, padding=1, gain=4)


class ToImage(nn.Module):
    """A 1 x 1 convolution to image channels whose input channels a style scales, without demodulation.

    Args:
        in_channels: of the input.
        image_channels: of the image.
        w_dim: size of the latent w.
    """

    def __init__(self, in_channels: int, image_channels: int, w_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(image_channels, in_channels))
        self.bias = nn.Parameter(torch.zeros(image_channels))
        self.affine = EqualizedLinear(w_dim, in_channels, bias=1.0)

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Map (N, in_channels, H, W) and w (N, w_dim) to (N, image_channels, H, W)."""
        style = self.affine(w) / math.sqrt(self.weight.shape[1])
        pixels = (x * style[:, :, None, None].to(x.dtype)).permute(0, 2, 3, 1)
        return F.linear(pixels, self.weight, self.bias).permute(0, 3, 1, 2)
