"""Print how long the attention blur takes beside torchvision's fixed-width blur and the unfold formulation.

    clinbundles bench blur [--size 512] [--threads 2] [--repeats 21]

Every round runs each contender once, so that a busy machine slows all of them alike; the table shows medians, and
each one's time as a share of torchvision's. With a GPU the same follows for a batch of 32.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torchvision.transforms.functional import gaussian_blur

from clinbundles.scripts.bench.rounds import time_rounds
from clinbundles.transforms import blur

KERNEL_SIZE = 15


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


def compare(batch: int, size: int, repeats: int, device: str) -> None:
    """Print the table for images (batch, 3, size, size) on one device."""
    torch.manual_seed(0)
    image = torch.rand(batch, 3, size, size, device=device)
    random = 2 * torch.rand(batch, 1, size, size, device=device)
    attention = spot(size, device).expand(batch, 1, size, size).contiguous()
    ours = blur.spatially_varying_gaussian_blur

    kernel = "plain torch" if blur._fused_kernel(device) is None else {"cpu": "numba", "cuda": "Triton"}[device]
    fixed = "torchvision gaussian_blur, one sigma"
    contenders: dict[str, Callable[[], object]] = {
        fixed: lambda: gaussian_blur(image, [KERNEL_SIZE] * 2, [1.0] * 2),
        f"{kernel}, sigma random in [0, 2]": lambda: ours(image, random),
    }
    for base in (0.2, 0.5, 1.0):
        smooth = base + 0.3 * (1 - attention)
        contenders[f"{kernel}, sigma smooth in [{base}, {base + 0.3}]"] = partial(ours, image, smooth)
    transform = blur.AttentionGaussianBlur(1.0)
    contenders["AttentionGaussianBlur(1.0), checks and all"] = lambda: transform(image, attention)
    contenders["plain torch fallback, sigma random in [0, 2]"] = lambda: blur._blur_with_torch(image, random, 7)

    seconds = time_rounds(contenders, rounds=repeats, warm_up=2, device=device)
    if device == "cpu":  # seconds a call, and a window per pixel in memory
        seconds |= time_rounds({"unfold, sigma random in [0, 2]": lambda: unfold_blur(image, random)}, rounds=3)
    times = {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
    print(f"\n{device}, {batch} x 3 x {size} x {size}, {torch.get_num_threads()} threads, window {KERNEL_SIZE}")
    print(f"largest error against float64, sigma random in [0, 2]: {error(image[:1], random[:1]):.1e}")
    print(f"{'':48} {'median ms':>10} {'/ torchvision':>14}")
    for name, milliseconds in times.items():
        print(f"{name:48} {milliseconds:10.2f} {milliseconds / times[fixed]:14.2f}")


def main(size: int = 512, threads: int = 2, repeats: int = 21) -> None:
    """Compare on the CPU for one image (3, size, size), and on CUDA, when there is a GPU, for 32."""
    torch.set_num_threads(threads)
    compare(1, size, repeats, "cpu")
    if torch.cuda.is_available():
        compare(32, size, repeats, "cuda")
    else:
        print("\nNo CUDA device: its rows are left out.")
