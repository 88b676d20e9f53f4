"""The attention blur for CUDA, compiled by Triton: one fused kernel that keeps rows of pixels in registers."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

BLOCK_H = 4
BLOCK_W = 128


def blur_tiles(image: torch.Tensor, sigma: torch.Tensor, radius: int) -> torch.Tensor:
    """Blur contiguous image (N, C, H, W) by sigma (N, 1, H, W), float32 or float64, on a CUDA device.

    The image may be of any floating type or uint8: pixels are read as they are, added up in sigma's type, and written
    in the image's type (uint8 rounded). Where sigma is NaN, the pixel becomes NaN.

    Args:
        image: pixels.
        sigma: width in pixels.
        radius: half the window's side, less than both sides of the image.
    """
    out = torch.empty_like(image)
    n, channels, height, width = image.shape
    if out.numel():
        margin = triton.cdiv(radius, 4) * 4
        lines = _reflected_lines(image, radius, margin)
        # The batch is folded into the first axis of the grid: the others hold no more than 65535.
        tiles_x, tiles_y = triton.cdiv(width, BLOCK_W), triton.cdiv(height, BLOCK_H)
        with torch.cuda.device_of(image):
            _tile[(n * tiles_y * tiles_x,)](
                *(lines, sigma, out, channels, height, width, lines.shape[-1], tiles_y, tiles_x),
                RADIUS=radius,
                SIDE=margin // 4,
                ROUND=not image.is_floating_point(),
                BLOCK_H=BLOCK_H,
                QUADS=BLOCK_W // 4,
                enable_fp_fusion=True,  # Triton 3.9 warns where it is not said
            )
    return out


def _reflected_lines(image: torch.Tensor, radius: int, margin: int) -> torch.Tensor:
    """Return a copy with `margin` columns more on both sides, `radius` of them reflected and the rest undefined.

    Its length is a multiple of 16, so that the kernel may read four pixels at once.
    """
    *lead, width = image.shape
    lines = image.new_empty(*lead, triton.cdiv(width + 2 * margin, 16) * 16)
    lines[..., margin : margin + width] = image
    if radius:
        lines[..., margin - radius : margin] = image[..., 1 : radius + 1].flip(-1)
        lines[..., margin + width : margin + width + radius] = image[..., -radius - 1 : -1].flip(-1)
    return lines


@triton.jit
def _tile(
    lines: tl.tensor,
    sigma: tl.tensor,
    out: tl.tensor,
    channels: int,
    height: int,
    width: int,
    pitch: int,
    tiles_y: int,
    tiles_x: int,
    RADIUS: tl.constexpr,  # noqa: N803
    SIDE: tl.constexpr,  # noqa: N803
    ROUND: tl.constexpr,  # noqa: N803
    BLOCK_H: tl.constexpr,  # noqa: N803
    QUADS: tl.constexpr,  # noqa: N803
) -> None:
    """Fill one tile of `out` for all channels. The tap at (dx, dy) weighs q^(dx²) q^(dy²), q = exp(-1 / (2 sigma²)).

    Each thread holds four neighbours along x, so that a row of its taps is SIDE + 1 + SIDE reads of four pixels, whose
    sums of two mirrored rows serve all four.
    """
    tile = tl.program_id(0)
    item = (tile // (tiles_x * tiles_y)).to(tl.int64)
    y = (tile // tiles_x) % tiles_y * BLOCK_H + tl.arange(0, BLOCK_H)[:, None, None]
    first = tile % tiles_x * (4 * QUADS) + 4 * tl.arange(0, QUADS)[None, :, None]
    x = first + tl.arange(0, 4)[None, None, :]
    inside = (y < height) & (x < width)
    reads = (y < height) & (first < width) & (x >= 0)  # four at once, and what follows the last pixel is its margin
    s = tl.load(sigma + item * height * width + y * width + x, mask=inside, other=0.0)
    blurred = s > 0.01
    safe = tl.where(blurred, s, 1.0)
    q = tl.exp(-0.5 / (safe * safe))

    # Row k of the weights is q^(k²) = q^((k-1)²) q^(2k-1), as four quarters: one for each of the neighbours.
    weight = tl.full(s.shape, 1.0, s.dtype)
    step = q
    side = weight
    quarters = _quarters(weight)
    for _ in tl.static_range(RADIUS):
        weight *= step
        step *= q * q
        side += 2.0 * weight
        quarters = quarters + _quarters(weight)

    # Rows further than sqrt(40) times the widest sigma of the tile weigh less than exp(-20) of the centre.
    widths = tl.minimum(tl.where(blurred, s, 0.0), RADIUS * 1.0)
    widest = tl.max(tl.max(tl.max(widths, axis=2), axis=1), axis=0)
    reach = tl.minimum((widest * 6.3246).to(tl.int32) + 1, RADIUS)

    row = tl.minimum(y, height - 1)
    for c in range(channels):
        plane = lines + (item * channels + c) * height * pitch + x
        centre = tl.load(plane + row * pitch + 4 * SIDE, mask=inside, other=0.0)
        total = _line(plane + row * pitch, plane + row * pitch, reads, quarters, RADIUS, SIDE) * 0.5
        weight = tl.full(s.shape, 1.0, s.dtype)
        step = q
        for dy in range(1, reach + 1):
            weight *= step
            step *= q * q
            above = tl.abs(row - dy)
            below = tl.where(row + dy < height, row + dy, 2 * (height - 1) - row - dy)
            total += weight * _line(plane + above * pitch, plane + below * pitch, reads, quarters, RADIUS, SIDE)
        result = tl.where(blurred, total / (side * side), tl.where(s == s, centre.to(s.dtype), s))
        if ROUND:
            result = tl.floor(result + 0.5)
        target = out + (item * channels + c) * height * width + y * width + x
        tl.store(target, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def _quarters(values):  # noqa: ANN001, ANN202
    """Split (h, w, 4) into four of (h, w), which every thread has at hand."""
    even, odd = tl.split(tl.reshape(values, (values.shape[0], values.shape[1], 2, 2)))
    a, c = tl.split(even)
    b, d = tl.split(odd)
    return (a, b, c, d)


@triton.jit
@no_type_check
def _line(above, below, reads, quarters, RADIUS: tl.constexpr, SIDE: tl.constexpr):  # noqa: ANN001, ANN202, N803
    """Add up the taps of two mirrored rows along x: (h, w, 4) sums of quarters[4 |dx| + i] times pixel i + dx."""
    dtype: tl.constexpr = quarters[0].dtype
    pixels = ()
    for block in tl.static_range(2 * SIDE + 1):
        pair = tl.load(above + 4 * block, mask=reads, other=0.0).to(dtype)
        pair += tl.load(below + 4 * block, mask=reads, other=0.0).to(dtype)
        pixels = pixels + _quarters(pair)
    sums = ()
    for i in tl.static_range(4):
        value = pixels[4 * SIDE + i]
        for dx in tl.static_range(1, RADIUS + 1):
            value += quarters[4 * dx + i] * (pixels[4 * SIDE + i - dx] + pixels[4 * SIDE + i + dx])
        sums = sums + (value,)  # noqa: RUF005  (Triton knows no unpacking)
    joined = tl.join(tl.join(sums[0], sums[2]), tl.join(sums[1], sums[3]))
    return tl.reshape(joined, (joined.shape[0], joined.shape[1], 4))
