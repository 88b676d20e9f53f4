"""Two-stage segmentation: a first network on the small image, a second one on the windows where the first is unsure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers import Inferer
from torch import nn
from torch.nn import functional as F

from .cuda_graph import CapturedNetwork
from .macs import count_macs, count_macs_paper, output_on_meta
from .uncertain_windows import (
    SCORES,
    add_windows,
    gather_windows,
    paste_windows,
    shrink,
    window_places,
    window_uncertainty,
    window_weights,
)

SELECTORS = ("top_k", "threshold", "budget")


class TwoStageSegmenter(nn.Module):
    """Segment images (B, C, *S), of two or three spatial axes and any size, in two stages.

    The image shrunk by ``scale`` goes through ``low_net``; its probabilities are stretched to full size and cut into
    ``n_patches`` windows along each axis. The windows in which they are least certain, of all images together, make one
    batch for ``high_net``, and its result replaces theirs. O = 1 is read as one sigmoid, O > 1 as a softmax with class
    0 as background. Where a side does not divide into windows that ``high_net`` takes, the image is padded and the
    result cropped.

    Args:
        low_net: network of stage 1, giving logits of the size of its input.
        high_net: network of stage 2; with ``conditioned`` it has O more input channels.
        scale: factor by which the image is shrunk for stage 1.
        n_patches: windows along each axis, N_p.
        n_select: windows refined in each image; None takes the paper's N_p of N_p x N_p (1 in N_p of a volume's), 0
            leaves stage 1 alone. For ``selector`` "top_k".
        score: what makes a window uncertain, see :func:`.uncertain_windows.window_uncertainty`: "mean" (paper),
            "entropy", "margin", "distance" or "boundary".
        score_on: "probabilities", or "logits" to stretch, score ("mean" only) and paste logits as the authors' code
            does; it favours confident foreground over confident background.
        selector: "top_k"; "threshold" refines the windows whose uncertainty is at least ``threshold``, a number of its
            own in each image; "budget" refines as many windows as ``budget_macs`` allows.
        threshold: for "threshold"; the paper's |mean - 0.5| <= 0.25 is 0.25.
        budget_macs: multiply-accumulates of both networks together for one image, for "budget".
        overlap: share of a window's side that it has in common with the next; 0 (paper) or a value such as 0.5.
        blend: weights of overlapping windows: "constant" or "gaussian".
        conditioned: ``high_net`` sees the image's window joined with the stretched stage-1 probabilities.
        divisor: sides of what the networks take are multiples of this.
        patch_batch_size: windows at a time in stage 2, to bound memory; None takes all at once.

    Raises:
        ValueError: an option outside its range; in ``forward``, an empty or integer image, a side that leaves whole
            windows in the padding, or NaN from stage 1 (on a GPU an assertion there, which ends its use).

    Source: Teixeira e Silva et al., Two-stage Semantic Segmentation in Neural Networks, section 3; finer windows are
    its future work.
    """

    def __init__(
        self,
        low_net: nn.Module,
        high_net: nn.Module,
        *,
        scale: int = 8,
        n_patches: int = 4,
        n_select: int | None = None,
        score: str = "mean",
        score_on: str = "probabilities",
        selector: str = "top_k",
        threshold: float = 0.25,
        budget_macs: float | None = None,
        overlap: float = 0.0,
        blend: str = "constant",
        conditioned: bool = False,
        divisor: int = 32,
        patch_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("score", score, SCORES),
            ("score_on", score_on, ("probabilities", "logits")),
            ("selector", selector, SELECTORS),
            ("blend", blend, ("constant", "gaussian")),
        ):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}.")
        for name, number in (("scale", scale), ("n_patches", n_patches), ("divisor", divisor)):
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} is {number!r}, expected a whole number of 1 or more.")
        if n_select is not None and (not isinstance(n_select, int) or n_select < 0):
            raise ValueError(f"n_select is {n_select!r}, expected None or a whole number of 0 or more.")
        if patch_batch_size is not None and (not isinstance(patch_batch_size, int) or patch_batch_size < 1):
            raise ValueError(f"patch_batch_size is {patch_batch_size!r}, expected None or a whole number of 1 or more.")
        if score_on == "logits" and (score != "mean" or conditioned):
            raise ValueError(f"score_on='logits' goes with score='mean' and conditioned=False, got score={score!r}.")
        if selector == "budget" and budget_macs is None:
            raise ValueError("selector='budget' needs budget_macs.")
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap is {overlap}, expected at least 0 and less than 1.")
        self.low_net = low_net
        self.high_net = high_net
        self.scale = scale
        self.n_patches = n_patches
        # TorchScript cannot compare None: -1 is the paper's number, 0 is all windows at once.
        self.n_select = -1 if n_select is None else n_select
        self.score = score
        self.use_logits = score_on == "logits"
        self.selector = selector
        self.threshold = float(threshold)
        self.budget_macs = float(budget_macs or 0)
        self._macs: dict = {}  # by shape of the image, those of stage 1 and of one window
        self.overlap = float(overlap)
        self.blend = blend
        self.conditioned = conditioned
        self.divisor = divisor
        self.patch_batch_size = patch_batch_size or 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits of the image (B, C, *S), a floating-point tensor as both networks expect it."""
        if not torch.jit.is_scripting():
            image = _plain(image)
        patch, stride, _ = self.windows(image)
        padded = self._pad(image, patch)
        result = self.stage_1(padded)
        numbers = self.choose(padded, result, patch, stride)
        if numbers.numel() > 0:
            result = self._refine(padded, result, numbers, patch, stride)
        for axis in range(2, image.dim()):
            result = result.narrow(axis, 0, image.shape[axis])
        return result if self.use_logits else _logits(result)

    @torch.jit.unused
    def capture(self, image: torch.Tensor) -> CapturedNetwork:
        """Return the same segmenter for images of this shape, type and device alone: on a GPU, one CUDA graph."""
        if self.selector == "threshold":
            raise ValueError("selector='threshold' refines another number of windows in each image: no capture.")
        return CapturedNetwork(self, _plain(image))

    def windows(self, image: torch.Tensor) -> tuple[list[int], list[int], list[int]]:
        """Return the side of a window, the step to the next and their number, by axis, for an image (B, C, *S)."""
        if image.dim() not in (4, 5) or image.numel() == 0 or not image.is_floating_point():
            raise ValueError(
                f"image of shape {image.shape} and type {image.dtype}: expected a floating-point (B, C, H, W) or "
                "(B, C, D, H, W) that is not empty."
            )
        patch: list[int] = []
        stride: list[int] = []
        counts: list[int] = []
        for side in image.shape[2:]:
            length = -(-side // (self.n_patches * self.divisor)) * self.divisor
            padding = length * self.n_patches - side
            if padding >= length:
                raise ValueError(
                    f"n_patches={self.n_patches} does not fit an image side of {side}: windows are multiples of "
                    f"{self.divisor} pixels, and {padding // length} of {self.n_patches} would lie outside the image."
                )
            step = int(length * (1 - self.overlap) + 0.5)
            if step < 1 or (length * (self.n_patches - 1)) % step != 0:
                raise ValueError(
                    f"overlap={self.overlap}: windows of {length} pixels would not end at the image's edge; 0.5 does."
                )
            patch.append(length)
            stride.append(step)
            counts.append(length * (self.n_patches - 1) // step + 1)
        return patch, stride, counts

    def _pad(self, image: torch.Tensor, patch: list[int]) -> torch.Tensor:
        padding: list[int] = []
        for axis in range(image.dim() - 1, 1, -1):
            padding += [0, patch[axis - 2] * self.n_patches - image.shape[axis]]
        return F.pad(image, padding, mode="replicate") if max(padding) > 0 else image

    def stage_1(self, image: torch.Tensor) -> torch.Tensor:
        """Return the stage-1 probabilities (logits with ``score_on="logits"``) (B, O, *S) of an image (B, C, *S)."""
        small = shrink(image, self.scale)
        padding: list[int] = []
        for side in small.shape[:1:-1]:
            padding += [0, -side % self.divisor]
        logits = self.low_net(F.pad(small, padding, mode="replicate") if max(padding) > 0 else small).float()
        for axis in range(2, image.dim()):
            logits = logits.narrow(axis, 0, small.shape[axis])
        values = logits if self.use_logits else _probabilities(logits)
        mode = "bilinear" if image.dim() == 4 else "trilinear"
        return F.interpolate(values, size=image.shape[2:], mode=mode, align_corners=False)

    def choose(self, image: torch.Tensor, stage_1: torch.Tensor, patch: list[int], stride: list[int]) -> torch.Tensor:
        """Return the numbers (K,) of the windows to refine, counted through the batch, by their stage-1 map."""
        if self.selector == "top_k" and self.n_select == 0:
            return torch.zeros([0], dtype=torch.long, device=image.device)
        uncertainty = window_uncertainty(stage_1, self.score, patch, stride)
        finite = torch.isfinite(uncertainty).all()
        if torch.jit.is_scripting():
            torch._assert_async(finite, "stage 1 gave NaN or infinite values, so its windows cannot be scored.")
        else:
            _require_finite(finite)
        n_windows = uncertainty.shape[1]
        if self.selector == "threshold":
            return torch.nonzero(uncertainty.flatten() >= self.threshold)[:, 0]
        count = self.n_select
        if count < 0:
            count = 1
            for _ in patch[1:]:
                count *= self.n_patches
        if self.selector == "budget":
            count = min(self.affordable(image), n_windows)
        if count > n_windows:
            raise ValueError(f"n_select={count}: there are only {n_windows} windows.")
        first = torch.arange(0, uncertainty.numel(), n_windows, device=uncertainty.device)
        return (uncertainty.topk(count, dim=1)[1] + first[:, None]).flatten()

    @torch.jit.unused
    def corners(self, image: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        """Return image number and first pixel of each window to refine, (K, 1 + axes), and the sides of a window."""
        image = _plain(image)
        patch, stride, counts = self.windows(image)
        padded = self._pad(image, patch)
        numbers = self.choose(padded, self.stage_1(padded), patch, stride)
        places = torch.stack(window_places(numbers, counts), dim=1)
        return places * torch.tensor([1, *stride], device=places.device), patch

    @torch.jit.unused
    def affordable(self, image: torch.Tensor) -> int:
        """Return how many windows of one image can be refined within ``budget_macs``."""
        shape = tuple(image.shape[1:])
        if shape not in self._macs:
            one_window = two_stage_macs(self, shape, n_select=1)
            self._macs[shape] = (one_window.stage_1, one_window.stage_2)
        stage_1, each = self._macs[shape]
        if self.budget_macs < stage_1:
            raise ValueError(f"budget_macs is {self.budget_macs:.4g}, stage 1 alone takes {stage_1:.4g}.")
        return int((self.budget_macs - stage_1) // each)

    def _refine(
        self,
        image: torch.Tensor,
        stage_1: torch.Tensor,
        numbers: torch.Tensor,
        patch: list[int],
        stride: list[int],
    ) -> torch.Tensor:
        """Return the stage-1 map with stage 2 in the windows with these numbers; ``stage_1`` may be overwritten."""
        overlapping = stride != patch
        weights = window_weights(patch, self.blend, image.device)
        # Where windows overlap, the last channel of the sum is that of the weights.
        shape = list(stage_1.shape)
        shape[1] += 1
        total = stage_1.new_zeros(shape) if overlapping else stage_1
        # Not one batch by split(): its number would be a fact of the example image in an exported network.
        for batch in numbers.split(self.patch_batch_size) if self.patch_batch_size > 0 else [numbers]:
            windows = gather_windows(image, batch, patch, stride)
            if self.conditioned:
                condition = gather_windows(stage_1, batch, patch, stride).to(windows.dtype)
                windows = torch.cat([windows, condition], dim=1)
            values = self.high_net(windows).float()
            values = values if self.use_logits else _probabilities(values)
            if overlapping:
                values = torch.cat([values * weights, weights.expand_as(values[:, :1])], dim=1)
                add_windows(total, values, batch, patch, stride)
            else:
                paste_windows(total, values, batch, patch)
        if not overlapping:
            return total
        covered = total[:, -1:]
        return torch.where(covered > 0, total[:, :-1] / covered.clamp(min=1e-6), stage_1)


class TwoStageInferer(Inferer):
    """Infer in two stages in any config: the evaluator's network is stage 2, or both networks are arguments.

    Args:
        low_net: network of stage 1.
        high_net: network of stage 2; None takes the network that the evaluator hands over.
        options: as of :class:`TwoStageSegmenter`.
    """

    def __init__(self, low_net: nn.Module, high_net: nn.Module | None = None, **options: Any) -> None:
        super().__init__()
        self.low_net = low_net
        self.high_net = high_net
        self.options = options
        self._segmenter = TwoStageSegmenter(low_net, low_net, **options)  # refuse wrong options now

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the logits (B, O, *S) of images (B, C, *S)."""
        if args or kwargs:
            raise ValueError(f"the networks take the image alone, got {[*args, *kwargs]} too.")
        high_net = network if self.high_net is None else self.high_net
        if self._segmenter.high_net is not high_net:
            self._segmenter = TwoStageSegmenter(self.low_net, high_net, **self.options)
        return self._segmenter(inputs)


@dataclass(frozen=True)
class TwoStageMacs:
    """Multiply-accumulates of each stage for one image, and of the network that would see all of it at full size."""

    stage_1: int
    stage_2: int
    baseline: int

    @property
    def total(self) -> int:
        """Multiply-accumulates of both stages."""
        return self.stage_1 + self.stage_2

    @property
    def ratio(self) -> float:
        """Share of the baseline that both stages cost; 1/64 + 1/N_p for the paper's networks and scale."""
        return self.total / self.baseline


def two_stage_macs(
    segmenter: TwoStageSegmenter,
    image_shape: Sequence[int],
    *,
    n_select: int | None = None,
    baseline: nn.Module | None = None,
    paper_formula: bool = False,
) -> TwoStageMacs:
    """Count what each stage of a segmenter costs for one image of shape (C, *S), padding included.

    Args:
        segmenter: both networks with their scale, number of windows and selector.
        image_shape: channels and sides.
        n_select: windows refined; None takes what the segmenter's selector refines in every image.
        baseline: network compared with, on the whole image; None takes the network of stage 2 itself, with the channels
            of its conditioning.
        paper_formula: count by :func:`count_macs_paper` and not by :func:`count_macs`.

    Raises:
        ValueError: no ``n_select`` although the selector is "threshold", whose number of windows differs by image.
    """
    count = count_macs_paper if paper_formula else count_macs
    channels, sides = image_shape[0], image_shape[1:]
    image = torch.empty((1, *image_shape), device="meta")
    patch, _, counts = segmenter.windows(image)
    if n_select is None and segmenter.selector == "threshold":
        raise ValueError("selector 'threshold' refines another number of windows in each image: give n_select.")
    padded = [side * segmenter.n_patches for side in patch]
    if n_select is None and segmenter.selector == "budget":
        affordable = segmenter.affordable(torch.empty((1, channels, *padded), device="meta"))
        n_select = min(affordable, math.prod(counts))
    if n_select is None:
        of_paper = segmenter.n_patches ** (len(patch) - 1)
        n_select = segmenter.n_select if segmenter.n_select >= 0 else of_paper  # -1: TorchScript wants a number

    small = (1, channels, *_multiples([max(1, side // segmenter.scale) for side in padded], segmenter.divisor))
    inputs = channels
    if segmenter.conditioned:
        inputs += output_on_meta(segmenter.low_net, small).shape[1]
    whole = _multiples(sides, segmenter.divisor)
    return TwoStageMacs(
        stage_1=count(segmenter.low_net, small),
        stage_2=n_select * count(segmenter.high_net, (1, inputs, *patch)),
        baseline=count(segmenter.high_net, (1, inputs, *whole))
        if baseline is None
        else count(baseline, (1, channels, *whole)),
    )


def _multiples(sides: Sequence[int], divisor: int) -> list[int]:
    """Round sides up to multiples of ``divisor``."""
    return [-(-side // divisor) * divisor for side in sides]


def _plain(image: torch.Tensor) -> torch.Tensor:
    """Drop meta data: MetaTensor's bookkeeping costs time at every step and fails on gathered windows."""
    return image.as_tensor() if isinstance(image, MetaTensor) else image


def _require_finite(finite: torch.Tensor) -> None:
    """Refuse what is not finite: at once on a CPU; a GPU stops at this check in its own time, the host not waiting."""
    sentence = "stage 1 gave NaN or infinite values, so its windows cannot be scored."
    try:
        torch._assert_async(finite, sentence)
    except RuntimeError as error:
        if finite.device.type != "cpu":
            raise
        raise ValueError(sentence) from error


def _probabilities(logits: torch.Tensor) -> torch.Tensor:
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


def _logits(probabilities: torch.Tensor) -> torch.Tensor:
    """Return logits that give the probabilities back; nearer to 0 and 1 than 1e-6 there is no difference."""
    if probabilities.shape[1] == 1:
        return torch.logit(probabilities, eps=1e-6)
    return probabilities.clamp(min=1e-6).log()
