"""The attention blur for CUDA, compiled by Triton: one fused kernel, without a padded copy."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK_H = 8
BLOCK_W = 64


def blur_tiles(image: torch.Tensor, sigma: torch.Tensor, radius: int) -> torch.Tensor:
    """Blur contiguous image (N, C, H, W) by sigma (N, 1, H, W), both float32 or both float64, on a CUDA device.

    Args:
        image: pixels.
        sigma: width in pixels.
        radius: half the window's side, less than both sides of the image.
    """
    out = torch.empty_like(image)
    n, channels, height, width = image.shape
    if out.numel():
        # The batch is folded into the first axis of the grid: the others hold no more than 65535.
        tiles_x, tiles_y = triton.cdiv(width, BLOCK_W), triton.cdiv(height, BLOCK_H)
        with torch.cuda.device_of(image):
            _tile[(n * tiles_y * tiles_x,)](
                *(image, sigma, out, channels, height, width, tiles_y, tiles_x),
                RADIUS=radius,
                BLOCK_H=BLOCK_H,
                BLOCK_W=BLOCK_W,
                enable_fp_fusion=True,  # Triton 3.9 warns where it is not said
            )
    return out


@triton.jit
def _tile(
    image: tl.tensor,
    sigma: tl.tensor,
    out: tl.tensor,
    channels: int,
    height: int,
    width: int,
    tiles_y: int,
    tiles_x: int,
    RADIUS: tl.constexpr,  # noqa: N803
    BLOCK_H: tl.constexpr,  # noqa: N803
    BLOCK_W: tl.constexpr,  # noqa: N803
) -> None:
    """Fill one tile of `out` for all channels. The tap at (dx, dy) weighs q^(dx²) q^(dy²), q = exp(-1 / (2 sigma²))."""
    tile = tl.program_id(0)
    item = (tile // (tiles_x * tiles_y)).to(tl.int64)
    y = (tile // tiles_x) % tiles_y * BLOCK_H + tl.arange(0, BLOCK_H)[:, None]
    x = tile % tiles_x * BLOCK_W + tl.arange(0, BLOCK_W)[None, :]
    inside = (y < height) & (x < width)
    s = tl.load(sigma + item * height * width + y * width + x, mask=inside, other=0.0)
    blurred = s > 0.01
    safe = tl.where(blurred, s, 1.0)
    rate = -0.5 / (safe * safe)  # the logarithm of q

    side = tl.full(s.shape, 1.0, s.dtype)
    for k in tl.static_range(1, RADIUS + 1):
        side += 2.0 * tl.exp(rate * (k * k))

    # Rows further than sqrt(40) times the widest sigma of the tile weigh less than exp(-20) of the centre.
    widest = tl.minimum(tl.max(tl.max(s, axis=1), axis=0), RADIUS * 1.0)
    reach = tl.minimum((widest * 6.3246).to(tl.int32) + 1, RADIUS)

    for c in range(channels):
        plane = image + (item * channels + c) * height * width
        total = tl.zeros(s.shape, s.dtype)
        for dy in range(-reach, reach + 1):
            row = tl.abs(y + dy)
            row = tl.where(row < height, row, 2 * (height - 1) - row)
            line = tl.zeros(s.shape, s.dtype)
            for dx in tl.static_range(-RADIUS, RADIUS + 1):
                column = tl.abs(x + dx)
                column = tl.where(column < width, column, 2 * (width - 1) - column)
                pixel = tl.load(plane + row * width + column, mask=inside, other=0.0)
                line += tl.exp(rate * (dx * dx)) * pixel
            total += tl.exp(rate * (dy * dy)) * line
        centre = tl.load(plane + y * width + x, mask=inside, other=0.0)
        result = tl.where(blurred, total / (side * side), centre)
        tl.store(out + (item * channels + c) * height * width + y * width + x, result, mask=inside)
