"""Gaussian blur whose width follows an attention map, pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor, get_track_meta
from monai.transforms import MapTransform, Randomizable, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor

__all__ = [
    "AttentionGaussianBlur",
    "AttentionGaussianBlurd",
    "RandAttentionGaussianBlurd",
    "spatially_varying_gaussian_blur",
]

# At or below this width (in pixels) a pixel is copied.
COPY_SIGMA = 0.01
# Taps further than sqrt(40) sigma weigh less than exp(-20) = 2e-9 of the centre, below float32 resolution.
CUTOFF = 40.0
# Interpolation may leave an attention map this far outside [0, 1].
ROUNDING = 1e-5

Kernel = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


@torch.no_grad()
def spatially_varying_gaussian_blur(image: torch.Tensor, sigma: torch.Tensor, kernel_size: int = 15) -> torch.Tensor:
    """Blur image (..., C, H, W) with one Gaussian width per pixel, sigma (..., 1, H, W), to the same shape and dtype.

    out(x, y) = sum g(dx, dy) image(x + dx, y + dy) / sum g(dx, dy), g(dx, dy) = exp(-(dx² + dy²) / (2 sigma(x, y)²)),
    over the window |dx|, |dy| <= kernel_size // 2, with reflected borders. Where sigma <= 0.01 the pixel is copied.
    The computation runs in float32 (float64 for a float64 image); uint8 is rounded. It is not differentiable.

    On the CPU a numba kernel does the work, on CUDA a Triton kernel; without them plain torch does, more slowly.
    On CUDA nothing waits for the device: where sigma is NaN, a floating image becomes NaN instead of being refused.

    Args:
        image: floating or uint8 tensor; a MetaTensor keeps its metadata and its pending operations.
        sigma: width in pixels of the image grid.
        kernel_size: odd side of the square window in pixels.

    Raises:
        TypeError: when the image is neither floating nor uint8.
        ValueError: when the shapes disagree, sigma holds NaN, or the window does not fit the image.

    Source: attention-based Gaussian blurring for polyp segmentation, eq. 1-2, read with the kernel at the offset from
    the pixel and normalised over the window (as printed it brightens the image without bound for small sigma).
    """
    plain = convert_to_tensor(image, track_meta=False)
    _check_window(plain, kernel_size)
    expected = (*plain.shape[:-3], 1, *plain.shape[-2:])
    if tuple(sigma.shape) != expected:
        raise ValueError(f"sigma must have shape {expected} for image {tuple(plain.shape)}, got {tuple(sigma.shape)}.")

    work = torch.float64 if plain.dtype == torch.float64 else torch.float32
    kernel = _fused_kernel(plain.device.type) or _blur_with_torch
    pixels = plain.detach()
    if not (plain.is_cuda and kernel is not _blur_with_torch):  # Triton reads pixels of any type
        pixels = pixels.to(work)
    pixels = pixels.contiguous().reshape(-1, *plain.shape[-3:])
    widths = convert_to_tensor(sigma, track_meta=False).detach().to(plain.device, work).contiguous()
    if not (plain.is_cuda and plain.is_floating_point()):
        light = _light(widths)
        if bool((light != light).any()):
            raise ValueError("sigma holds NaN; every pixel needs a number.")

    blurred = kernel(pixels, widths.reshape(-1, 1, *plain.shape[-2:]), kernel_size // 2).reshape(plain.shape)
    if not plain.is_floating_point():
        blurred = blurred.round()
    return convert_to_dst_type(blurred.to(plain.dtype), dst=image)[0]


class AttentionGaussianBlur(Transform):
    """Blur image (C, H, W) by attention (1, H, W) in [0, 1]; batches (B, C, H, W) go with attention (B, 1, H, W).

    sigma = sigma_base + weight (1 - attention) in mode "positive", which keeps what was looked at sharper than the
    rest; sigma = sigma_base - weight (1 - attention) in mode "reverse", where sigma <= 0.01 copies the pixel.

    On CUDA an attention out of [0, 1] turns its pixels of a floating image into NaN, as a check would wait for the
    device. The blur works on the pixels as stored. `Compose` runs pending lazy operations before it; when it is called
    directly, they stay pending on the result.

    Args:
        sigma_base: width in pixels where attention is 1.
        weight: pixels of width added or taken away where attention is 0.
        kernel_size: odd side of the square window in pixels.
        mode: "positive" or "reverse".
        scale: factor on the widths and, rounded up, on the reach of the window: the side of the image over that of the
            grid which the pixels above are of.

    Raises:
        ValueError: for a parameter out of range, and at the call when image and attention differ in height or width
            or in their pending operations, or when attention leaves [0, 1].

    Source: attention-based Gaussian blurring for polyp segmentation, eq. 1-4 (weight 0.3, window 15).
    """

    def __init__(
        self,
        sigma_base: float,
        weight: float = 0.3,
        kernel_size: int = 15,
        mode: str = "positive",
        *,
        scale: float = 1.0,
    ) -> None:
        _check_number("sigma_base", sigma_base)
        _check_number("weight", weight)
        _check_number("scale", scale)
        _check_kernel_size(kernel_size)
        if mode not in ("positive", "reverse"):
            raise ValueError(f'mode must be "positive" or "reverse", got {mode!r}.')
        self.sigma_base: float | np.ndarray = sigma_base
        self.weight = weight
        self.kernel_size = 2 * math.ceil(kernel_size // 2 * scale) + 1
        self.mode = mode
        self.scale = scale

    def __call__(  # type: ignore[override]
        self, image: NdarrayOrTensor, attention: NdarrayOrTensor
    ) -> torch.Tensor:
        """Return the blurred image, of the image's shape and dtype."""
        pixels: torch.Tensor = convert_to_tensor(image, track_meta=get_track_meta())
        _check_pending(pixels, attention)
        weights = convert_to_tensor(attention, track_meta=False)
        expected = (*pixels.shape[:-3], 1, *pixels.shape[-2:])
        if tuple(weights.shape) != expected:
            raise ValueError(
                f"attention must have shape {expected} for image {tuple(pixels.shape)}, got {tuple(weights.shape)}."
            )
        weights = weights.to(pixels.device, torch.promote_types(weights.dtype, torch.float32))
        light = _light(weights)
        if weights.is_cuda and pixels.is_floating_point():
            light = torch.where((light >= -ROUNDING) & (light <= 1 + ROUNDING), light, math.nan)
        elif weights.numel():
            low, high = float(light.min()), float(light.max())
            if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # NaN fails too
                raise ValueError(f"attention must lie in [0, 1], got values from {low:g} to {high:g}.")
        spread = self.weight if self.mode == "positive" else -self.weight
        base: Any = self.sigma_base
        if isinstance(base, np.ndarray) and isinstance(light, torch.Tensor):
            base = torch.from_numpy(base).to(light.device, light.dtype, non_blocking=True)
        sigma = self.scale * (base + spread * (1 - light.clip(0, 1)))
        return spatially_varying_gaussian_blur(pixels, torch.as_tensor(sigma), self.kernel_size)


class AttentionGaussianBlurd(MapTransform):
    """Blur the images (C, H, W) at `keys` by the attention map (1, H, W) at `attention_key`: AttentionGaussianBlur.

    Args:
        keys: the images to blur.
        sigma_base: width in pixels where attention is 1.
        weight: pixels of width added or taken away where attention is 0.
        kernel_size: odd side of the square window in pixels.
        mode: "positive" or "reverse".
        scale: as for AttentionGaussianBlur.
        attention_key: where the attention map is.
        allow_missing_attention: pass the images unblurred when the map is absent or None.
        allow_missing_keys: pass over images that are absent.

    Raises:
        KeyError: when the map is absent or None and `allow_missing_attention` is False.
        ValueError: see AttentionGaussianBlur.
    """

    def __init__(
        self,
        keys: KeysCollection,
        sigma_base: float,
        weight: float = 0.3,
        kernel_size: int = 15,
        mode: str = "positive",
        *,
        scale: float = 1.0,
        attention_key: Hashable = "attention",
        allow_missing_attention: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.blur = AttentionGaussianBlur(sigma_base, weight, kernel_size, mode, scale=scale)
        self.attention_key = attention_key
        self.allow_missing_attention = allow_missing_attention

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the sample with the images blurred."""
        sample = dict(data)
        attention = sample.get(self.attention_key)
        if attention is None:
            if self.allow_missing_attention:
                return sample
            file = getattr(sample.get(self.keys[0]), "meta", {}).get("filename_or_obj", "The sample")
            raise KeyError(
                f"{Path(file).name}: no attention map at {self.attention_key!r}, which is made from fixations (it has "
                f"{', '.join(map(str, sample))}), so there is no gaze to blur by: --arm original trains without, "
                "clinbundles simulate-gaze draws some from masks, --allow_missing_gaze true (allow_missing_attention) "
                "leaves such images unblurred."
            )
        for key in self.key_iterator(sample):
            sample[key] = self.blur(sample[key], attention)
        return sample


class RandAttentionGaussianBlurd(Randomizable, AttentionGaussianBlurd):
    """Blur the images (C, H, W) at `keys` by attention (1, H, W), with sigma_base ~ U(sigma_min, sigma_max) per sample.

    The number is drawn once a sample, also for a sample without attention, so the sequence depends on the seed alone.
    Of a batch (B, C, H, W) with attention (B, 1, H, W), each image draws its own.

    Args:
        keys: the images to blur, all with the same sigma_base.
        sigma_min: least sigma_base in pixels.
        sigma_max: largest sigma_base in pixels.
        weight: pixels of width added or taken away where attention is 0.
        kernel_size: odd side of the square window in pixels.
        mode: "positive" or "reverse".
        scale: as for AttentionGaussianBlur.
        attention_key: where the attention map is.
        allow_missing_attention: pass the images unblurred when the map is absent or None.
        allow_missing_keys: pass over images that are absent.

    Raises:
        KeyError: when the map is absent or None and `allow_missing_attention` is False.
        ValueError: when sigma_min > sigma_max; see AttentionGaussianBlur for the rest.

    Source: attention-based Gaussian blurring for polyp segmentation (sigma_base ~ U(0, 1)).
    """

    def __init__(
        self,
        keys: KeysCollection,
        sigma_min: float = 0.0,
        sigma_max: float = 1.0,
        weight: float = 0.3,
        kernel_size: int = 15,
        mode: str = "positive",
        *,
        scale: float = 1.0,
        attention_key: Hashable = "attention",
        allow_missing_attention: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        _check_number("sigma_min", sigma_min)
        _check_number("sigma_max", sigma_max)
        if sigma_min > sigma_max:
            raise ValueError(f"sigma_min must not exceed sigma_max, got {sigma_min} and {sigma_max}.")
        super().__init__(
            keys,
            sigma_min,
            weight,
            kernel_size,
            mode,
            scale=scale,
            attention_key=attention_key,
            allow_missing_attention=allow_missing_attention,
            allow_missing_keys=allow_missing_keys,
        )
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max

    def randomize(self, data: Any = None) -> None:
        """Draw sigma_base for the sample or batch `data`."""
        shape = tuple(np.shape(data[self.keys[0]])) if data and self.keys[0] in data else ()
        size = (shape[0], 1, 1, 1) if len(shape) == 4 else None
        drawn = self.R.uniform(self.sigma_min, self.sigma_max, size)
        self.blur.sigma_base = float(drawn) if size is None else drawn.astype(np.float32)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the sample with the images blurred by a newly drawn width."""
        self.randomize(data)
        return super().__call__(data)


def _light(tensor: torch.Tensor) -> Any:
    """Return a view for cheap arithmetic: on the CPU a numpy array, as torch would wake its threads for each step.

    Those threads spin on for milliseconds, on cores that the blur needs, and a busy machine waits for them each time.
    """
    return tensor.detach().numpy() if tensor.device.type == "cpu" else tensor


def _fused_kernel(device_type: str) -> Kernel | None:
    """Return the compiled kernel for a device, or None where its compiler is not installed."""
    try:
        if device_type == "cpu":
            from .blur_numba import blur_rows

            return blur_rows
        if device_type == "cuda":
            from .blur_triton import blur_tiles

            return blur_tiles
    except ImportError:
        return None
    return None


def _blur_with_torch(image: torch.Tensor, sigma: torch.Tensor, radius: int) -> torch.Tensor:
    """Blur image (N, C, H, W) by sigma (N, 1, H, W) on any device."""
    n, channels, height, width = image.shape
    padded = F.pad(image, (radius,) * 4, mode="reflect")
    # exp runs here, once: torch would wake its threads for it even on a tile.
    base = sigma.clamp(min=COPY_SIGMA).square_().reciprocal_().mul_(-0.5).exp_()
    out = torch.empty_like(image)
    rows, columns = height, width
    if image.device.type == "cpu":
        # Tiles that stay in the cache, and below the 32768 values at which torch wakes its threads for each operation.
        columns = min(width, 112)
        rows = min(height, max(8, 32767 // (max(1, channels) * columns) - 2 * radius))
    for item in range(n):
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                part = (item, slice(None), slice(top, top + rows), slice(left, left + columns))
                tile = padded[item, :, top : top + rows + 2 * radius, left : left + columns + 2 * radius]
                out[part] = _blur_tile(tile, sigma[part], base[part], radius)
    return out


def _blur_tile(padded: torch.Tensor, sigma: torch.Tensor, base: torch.Tensor, radius: int) -> torch.Tensor:
    """Blur a tile, padded (C, h + 2 radius, w + 2 radius), by sigma and base (1, h, w) to (C, h, w).

    The weight of a tap is q^(dx²) q^(dy²) with the pixel's own base q = exp(-1 / (2 sigma²)), so pixels are first added
    in mirrored pairs, then weighed along x, then along y; the weights' sum is a square for the same reason.
    """
    height, width = sigma.shape[-2:]
    reach2 = CUTOFF * max(float(sigma.max()), 0.0) ** 2
    centre = padded[:, radius : radius + height, radius : radius + width]
    steps = [k for k in range(1, radius + 1) if k * k <= reach2]
    weights: dict[int, torch.Tensor] = {}
    norm, weight, ratio, square = torch.ones_like(sigma), torch.ones_like(sigma), base.clone(), base * base
    for k in steps:  # q^(k²) = q^((k-1)²) q^(2k-1); below 1e-18 it becomes 0, as products of two would be denormal
        weight = weights[k] = torch.threshold_(weight * ratio, 1e-18, 0.0)
        norm.add_(weight, alpha=2)
        torch.threshold_(ratio.mul_(square), 1e-18, 0.0)

    out = centre
    for dx in [0, *steps]:
        columns = padded[:, :, radius + dx : radius + dx + width]
        if dx:
            columns = columns + padded[:, :, radius - dx : radius - dx + width]
        total = columns[:, radius : radius + height].clone()
        for dy in steps:
            if dx * dx + dy * dy > reach2:
                break
            pair = columns[:, radius - dy : radius - dy + height] + columns[:, radius + dy : radius + dy + height]
            total.addcmul_(weights[dy], pair)
        out = out.addcmul_(weights[dx], total) if dx else total
    return torch.where(sigma <= COPY_SIGMA, centre, out.div_(norm.square_()))


def _check_kernel_size(kernel_size: int) -> None:
    if isinstance(kernel_size, bool) or not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be a positive odd integer, got {kernel_size!r}.")


def _check_window(image: torch.Tensor, kernel_size: int) -> None:
    _check_kernel_size(kernel_size)
    if image.ndim < 3:
        raise ValueError(f"image must have shape (..., C, H, W), got {tuple(image.shape)}.")
    if not (image.is_floating_point() or image.dtype == torch.uint8):
        raise TypeError(f"image must be floating or uint8, got {image.dtype}.")
    if min(image.shape[-2:]) <= kernel_size // 2:
        raise ValueError(
            f"image sides must exceed kernel_size // 2 = {kernel_size // 2} to reflect the border, "
            f"got {image.shape[-2]} x {image.shape[-1]}."
        )


def _check_number(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number >= 0, got {value!r}.")


def _check_pending(image: torch.Tensor, attention: NdarrayOrTensor) -> None:
    """Refuse maps that will be moved otherwise than the image: blurring as stored would misplace the blur."""
    if not isinstance(image, MetaTensor) or not isinstance(attention, MetaTensor):
        return
    names = [[str(step.get("class")) for step in data.pending_operations] for data in (image, attention)]
    if names[0] != names[1]:
        raise ValueError(
            f"image has pending operations {names[0]}, attention {names[1]}: apply them before the blur "
            "(monai.transforms.lazy.functional.apply_pending, or Compose)."
        )
