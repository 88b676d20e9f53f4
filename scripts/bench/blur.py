"""Print how long the attention blur takes beside torchvision's fixed-width blur and the unfold formulation.

    clinbundles bench blur [--size 512] [--threads 2] [--rounds 21] [--device cuda --batch 32]

Every round runs each contender once, so that a busy machine slows all of them alike; the table shows medians, and
each one's time as a share of torchvision's. On CUDA images in float16 and bfloat16 follow, each beside torchvision's
blur of such images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torchvision.transforms.functional import gaussian_blur

from clinbundles.scripts.bench.measurements import add_measurements, as_metric
from clinbundles.scripts.bench.rounds import describe_machine, ratios, time_rounds
from clinbundles.transforms import blur

KERNEL_SIZE = 15
FIXED = "torchvision gaussian_blur, one sigma"


def unfold_blur(image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Blur image (N, C, H, W) by sigma (N, 1, H, W) the plain way: every window laid out in memory."""
    n, channels = image.shape[:2]
    radius = KERNEL_SIZE // 2
    offsets = torch.arange(-radius, radius + 1, device=image.device)
    distance2 = (offsets[:, None] ** 2 + offsets**2).reshape(1, -1, 1)
    weights = torch.softmax(-distance2 / (2 * sigma.clamp(min=blur.COPY_SIGMA) ** 2).reshape(n, 1, -1), dim=1)
    windows = F.unfold(F.pad(image, (radius,) * 4, mode="reflect"), KERNEL_SIZE)
    blurred = torch.einsum("nckp,nkp->ncp", windows.view(n, channels, KERNEL_SIZE**2, -1), weights)
    return torch.where(sigma <= blur.COPY_SIGMA, image, blurred.view_as(image))


def error(image: torch.Tensor, sigma: torch.Tensor) -> float:
    """Return the largest deviation from the same sum in float64, tap by tap."""
    radius = KERNEL_SIZE // 2
    height, width = image.shape[-2:]
    wide, padded = sigma.double(), F.pad(image.double(), (radius,) * 4, mode="reflect")
    total, mass = torch.zeros_like(image.double()), torch.zeros_like(wide)
    for dy in range(KERNEL_SIZE):
        for dx in range(KERNEL_SIZE):
            weight = torch.exp(-((dx - radius) ** 2 + (dy - radius) ** 2) / (2 * wide**2))
            total += weight * padded[..., dy : dy + height, dx : dx + width]
            mass += weight
    exact = torch.where(wide <= blur.COPY_SIGMA, image.double(), total / mass)
    return float((blur.spatially_varying_gaussian_blur(image, sigma) - exact).abs().max())


def spot(size: int, device: str) -> torch.Tensor:
    """Return an attention map (1, size, size) in [0, 1]: one smooth spot in the middle."""
    line = torch.linspace(-1, 1, size, device=device) ** 2
    return torch.exp(-(line[:, None] + line) / 0.1)[None]


def contenders(image: torch.Tensor, *, variants: bool) -> dict[str, Callable[[], object]]:
    """Return what to call on images (N, 3, H, W), torchvision's blur first; with the variants, other widths too."""
    random = 2 * torch.rand_like(image[:, :1], dtype=torch.float32)
    attention = spot(image.shape[-1], str(image.device)).expand(random.shape).contiguous()
    ours = blur.spatially_varying_gaussian_blur
    transform = blur.AttentionGaussianBlur(1.0)
    calls: dict[str, Callable[[], object]] = {
        FIXED: lambda: gaussian_blur(image, [KERNEL_SIZE] * 2, [1.0] * 2),
        "this blur, sigma random in [0, 2]": lambda: ours(image, random),
        "the whole transform, checks and all": lambda: transform(image, attention),
    }
    for base in (0.2, 0.5, 1.0) if variants else ():
        smooth = base + 0.3 * (1 - attention)
        calls[f"this blur, sigma smooth in [{base}, {base + 0.3}]"] = partial(ours, image, smooth)
    if variants:
        calls["plain torch fallback, sigma random in [0, 2]"] = lambda: blur._blur_with_torch(image, random, 7)
    return calls


def compare(batch: int, size: int, rounds: int, device: str, dtype: torch.dtype) -> dict[str, dict[str, Any]]:
    """Print the table for images (batch, 3, size, size) of one type, and return its metrics by row."""
    torch.manual_seed(0)
    image = torch.rand(batch, 3, size, size, device=device).to(dtype)
    plain = dtype == torch.float32
    seconds = time_rounds(contenders(image, variants=plain), rounds=rounds, warm_up=2, device=device)
    rows = {
        name: {"ms": as_metric([1e3 * value for value in values]), "time": as_metric(ratios(values, seconds[FIXED]))}
        for name, values in seconds.items()
    }
    kernel = "plain torch" if blur._fused_kernel(device) is None else {"cpu": "numba", "cuda": "Triton"}[device[:4]]
    print(f"\n{device} ({kernel}), {batch} x 3 x {size} x {size}, {str(dtype)[6:]}, window {KERNEL_SIZE}")
    if plain:
        largest = error(image[:1], 2 * torch.rand_like(image[:1, :1]))
        rows["this blur, sigma random in [0, 2]"]["error"] = {"value": largest}
        print(f"largest error against float64, sigma random in [0, 2]: {largest:.1e}")
    print(f"{'':48} {'median ms':>10} {'/ torchvision':>14}")
    for name, row in rows.items():
        print(f"{name:48} {row['ms']['value']:10.2f} {row['time']['value']:14.2f}")
    return rows


def main(
    size: int = 512,
    batch: int | None = None,
    device: str = "cpu",
    threads: int = 2,
    rounds: int = 21,
    json: str | None = None,
) -> None:
    """Print the tables, and add their rows to the file that ``--json`` names.

    Args:
        size: side of the square images.
        batch: images at a time; one, on CUDA 32.
        device: cpu or cuda.
        threads: of a CPU.
        rounds: how often each is timed.
        json: file that the rows are added to, for clinbundles report --merge.
    """
    torch.set_num_threads(threads)
    gpu = device.startswith("cuda")
    batch = batch or (32 if gpu else 1)
    print(describe_machine(threads))
    for dtype in (torch.float32, torch.float16, torch.bfloat16) if gpu else (torch.float32,):
        rows = compare(batch, size, rounds, device, dtype)
        if not gpu:  # seconds a call, and a window per pixel in memory
            image, sigma = torch.rand(batch, 3, size, size), 2 * torch.rand(batch, 1, size, size)
            seconds = time_rounds({"unfold": partial(unfold_blur, image, sigma)}, rounds=min(rounds, 3))
            rows["unfold formulation"] = {"ms": as_metric([1e3 * value for value in seconds["unfold"]])}
            print(f"{'unfold formulation':48} {rows['unfold formulation']['ms']['value']:10.2f}")
        if json:
            add_measurements(
                json,
                "gaze_polyp_segmentation",
                f"blur, {batch} x 3 x {size} x {size}, {str(dtype)[6:]}",
                rows,
                device=device,
                threads=threads,
                scale=f"{KERNEL_SIZE} x {KERNEL_SIZE} window, {rounds} rounds",
            )
