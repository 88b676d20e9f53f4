"""A bound on the memory of this process: what a network needs for a window, and which window fits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from .image import LargeImage
from .store import LARGEST_CHUNK, chunk_of

LARGEST_WINDOW = 4096
READS_AT_ONCE = 4  # chunks that zarr decodes at a time
_CODEC_BYTES = 64e6
Predict = Callable[[torch.Tensor], torch.Tensor]
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_SAFETY = 1.15  # allocators keep some of what they are given back


def resident_bytes(*, peak: bool = False) -> int | None:
    """Return the memory this process holds now, or held at most, in bytes; None where the system does not tell."""
    if not _STATUS.is_file():
        return None
    field = "VmHWM:" if peak else "VmRSS:"
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def forget_peak() -> bool:
    """Start the peak of ``resident_bytes`` anew from what is held now; False where the system does not allow it."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


class MemoryBound:
    """What may be held at most, and what windows need, measured on small ones.

    Small windows of random numbers are predicted and the peak is read off; what a larger one needs follows on the
    straight line in the number of pixels. One window of the side so found is then predicted and measured itself. 15 %
    are added; beside it stands what this process holds already, and what reading and writing a window needs. On a GPU
    the measured peak is the GPU's, and the same bound holds for it alone, as for the process. ``check`` looks at the
    peak while a run goes on.

    Args:
        max_memory_gb: the bound, in units of 10^9 bytes.
        device: where the network runs.

    Attributes:
        enforced: False where the system tells no peak memory (Linux does): nothing can be measured or checked there.

    Raises:
        ValueError: a bound that is not positive, or that the process has passed already.
    """

    def __init__(self, max_memory_gb: float, *, device: torch.device) -> None:
        if not max_memory_gb > 0:
            raise ValueError(f"max_memory_gb is {max_memory_gb}, expected more than 0.")
        self.limit, self.device = max_memory_gb * 1e9, device
        self.fixed, self.per_pixel = 0.0, 0.0
        self._points: list[tuple[int, float]] = []
        self.enforced = forget_peak()
        self._held_at_start = resident_bytes() or 0
        if self._held_at_start > self.limit:
            raise ValueError(
                f"max_memory_gb is {max_memory_gb:g}, but Python, its libraries and the network alone hold "
                f"{self._held_at_start / 1e9:.2f} GB."
            )

    def window_for(self, image: LargeImage, predict: Predict, *, window: int | None, overlap: int) -> int:
        """Return the side of the windows, given or else the largest that fits, up to 4096.

        Raises:
            ValueError: it does not fit, or no window does; pieces of the image (tiles, strips) do not.
        """
        channels = image.shape[0]
        # The region twice while zarr puts it together, thrice as float32, the logits, four mask windows of a shard.
        room = {
            "bytes_per_pixel": channels * (2 * image.dtype.itemsize + 12) + 12.0,
            "fixed_bytes": _CODEC_BYTES + 2 * READS_AT_ONCE * image.chunk_bytes,
        }
        self._refuse_coarse_pieces(image)
        if window is not None:
            chunk_of(window=window, overlap=overlap)
        if not self.enforced:
            if window is None:
                raise ValueError("this system tells no peak memory: pass --window, whose fit is then not checked.")
            return window
        longest = LARGEST_CHUNK * math.ceil(max(image.shape[1:]) / LARGEST_CHUNK)
        largest = window or min(LARGEST_WINDOW, longest + 2 * overlap)
        probes = [window // n // 32 * 32 for n in (8, 4, 2)] if window else [256 * k + 2 * overlap for k in (1, 2, 4)]
        self.measure(predict, channels=channels, sides=[side for side in probes if 64 <= side < largest])
        sides = [window] if window else range((largest - 2 * overlap) // 256 * 256 + 2 * overlap, 2 * overlap, -256)
        refusal: Exception | None = None
        for side in sides:
            if self.fits(side, **room):
                refusal = self._probe(predict, channels=channels, side=side)  # at last by itself, not by the line
                if refusal is None and self.fits(side, **room):
                    return side
        if refusal is not None:
            raise ValueError(f"the network does not take a window of {sides[-1]} px: {refusal}") from refusal
        which = f"window is {window} px and" if window else f"the smallest window, {sides[-1]} px,"
        raise ValueError(
            f"{which} would need {self.needs(sides[-1], **room) / 1e9:.2f} GB, more than "
            f"max_memory_gb={self.limit / 1e9:g}: use a smaller window or overlap, or a larger bound."
        )

    def _refuse_coarse_pieces(self, image: LargeImage) -> None:
        if 2 * READS_AT_ONCE * image.chunk_bytes > self.limit / 2:
            raise ValueError(
                f"{image.name}: it is stored in pieces (tiles or strips) of {image.chunk_bytes / 1e9:.2f} GB, which "
                f"max_memory_gb={self.limit / 1e9:g} leaves no room for: store it in tiles of 256 or 512 px."
            )

    def measure(self, predict: Predict, *, channels: int, sides: Sequence[int]) -> None:
        """Find what the network needs by windows (1, channels, side, side), as far as they fit and it takes them."""
        for side in sorted(set(sides)):
            if self._points and self.needs(side) > self.limit:
                break
            self._probe(predict, channels=channels, side=side)

    def needs(self, side: int, *, bytes_per_pixel: float = 0.0, fixed_bytes: float = 0.0) -> float:
        """Return the bytes that the process, or the GPU if that is more, holds at most with windows of this side."""
        network = _SAFETY * (self.fixed + self.per_pixel * side**2)
        host = self._held_at_start + fixed_bytes + bytes_per_pixel * side**2
        return max(host, network) if self.device.type == "cuda" else host + network

    def fits(self, side: int, *, bytes_per_pixel: float, fixed_bytes: float) -> bool:
        """Tell whether windows of this side keep within the bound, and within what the GPU has."""
        if self.device.type == "cuda":
            total = torch.cuda.get_device_properties(self.device).total_memory
            if _SAFETY * (self.fixed + self.per_pixel * side**2) > total:
                return False
        return self.needs(side, bytes_per_pixel=bytes_per_pixel, fixed_bytes=fixed_bytes) <= self.limit

    def check(self) -> None:
        """Stop if the bound was passed since the start.

        Raises:
            MemoryError: it was.
        """
        peak = (resident_bytes(peak=True) or 0) if self.enforced else 0
        if self.device.type == "cuda":
            peak = max(peak, torch.cuda.max_memory_reserved(self.device))
        if peak > self.limit:
            raise MemoryError(
                f"{peak / 1e9:.2f} GB were held, more than max_memory_gb={self.limit / 1e9:g}: go on with a larger "
                "bound, or use --restart with a smaller window."
            )

    def _probe(self, predict: Predict, *, channels: int, side: int) -> Exception | None:
        """Measure one window and draw the line anew; return why the network does not take this side, if so."""
        try:
            peak = self._peak_of(predict, torch.rand(1, channels, side, side))
        except (ValueError, RuntimeError) as error:  # sides that it cannot divide; what the GPU has no memory for
            return error
        self._points.append((side, peak))
        self.fixed, self.per_pixel = _line(self._points[-2:])
        return None

    @torch.inference_mode()
    def _peak_of(self, predict: Predict, window: torch.Tensor) -> float:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            predict(window)
            return float(torch.cuda.max_memory_reserved(self.device))
        forget_peak()
        predict(window)
        return float(max((resident_bytes(peak=True) or 0) - self._held_at_start, 0))


def _line(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return constant and slope in pixels of the line through one point and the origin, or two points (side, bytes)."""
    side, last = points[-1]
    if len(points) == 1 or points[0][0] == side:
        return 0.0, last / side**2
    slope = max((last - points[0][1]) / (side**2 - points[0][0] ** 2), 0.0)
    return max(last - slope * side**2, 0.0), slope
