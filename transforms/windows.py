"""Windows of an image for training, and the stage-1 probability that says where to draw them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import convert_to_dst_type, convert_to_tensor


class RandWindowsd(Randomizable, MapTransform):
    """Cut the same random windows (C, *window) out of the images (C, *S) of a sample, one sample a window.

    The windows are plain tensors without meta data: for many small windows MONAI's ``RandSpatialCropSamplesd``, and the
    bookkeeping of each crop in it, takes longer than the training step itself.

    Args:
        keys: keys of the images, all of one size.
        window_size: sides of a window in pixels.
        num_samples: number of windows.
        weight_key: key of a map (1, *S) to whose values the chance of a window's centre is proportional; None draws
            uniformly.
        allow_missing_keys: pass over keys that are absent.

    Raises:
        ValueError: a window larger than the image; a weight map that is 0 throughout.
    """

    def __init__(
        self,
        keys: KeysCollection,
        window_size: Sequence[int],
        num_samples: int,
        *,
        weight_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.window_size = [int(side) for side in window_size]
        self.num_samples = num_samples
        self.weight_key = weight_key
        self.corners: list[list[int]] = []

    def randomize(self, data: Any) -> None:
        """Draw the first pixels of the windows for a sample."""
        sides = next(data[key].shape[1:] for key in self.key_iterator(data))
        room = [side - window for side, window in zip(sides, self.window_size, strict=True)]
        if min(room) < 0:
            raise ValueError(f"windows of {self.window_size} pixels do not fit an image of {list(sides)}.")
        if self.weight_key is None:
            self.corners = [[self.R.randint(0, free + 1) for free in room] for _ in range(self.num_samples)]
            return
        cumulative = np.cumsum(np.asarray(data[self.weight_key][0], dtype=np.float64))
        if not cumulative[-1] > 0:
            raise ValueError(f"{self.weight_key} sums to {cumulative[-1]}: a weight map has something above 0.")
        draws = self.R.random_sample(self.num_samples) * cumulative[-1]
        centres = np.stack(np.unravel_index(np.searchsorted(cumulative, draws, side="right"), tuple(sides)), axis=1)
        # A centre near the edge stands for the outermost window.
        self.corners = np.clip(centres - np.array(self.window_size) // 2, 0, room).tolist()

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> list[dict[Hashable, torch.Tensor]]:
        """Return one sample a window."""
        self.randomize(data)
        plain = {key: convert_to_tensor(data[key], track_meta=False) for key in self.key_iterator(data)}
        windows = []
        for corner in self.corners:
            area = tuple(slice(first, first + side) for first, side in zip(corner, self.window_size, strict=True))
            windows.append({**data, **{key: image[(slice(None), *area)].clone() for key, image in plain.items()}})
        return windows


class Stage1Probabilityd(MapTransform):
    """Add the stage-1 foreground probability (1, *S) of an image (C, *S), and its uncertainty (1, *S), to a sample.

    Stage 2 is trained on windows. With this transform before the random ones, the windows can be drawn where stage 1 is
    unsure (``RandWeightedCropd`` with ``w_key="uncertainty"``), and stage 2 can see the probability beside the image.
    It is deterministic, so a ``CacheDataset`` runs stage 1 once an image.

    Args:
        keys: key of the image.
        stage_1: from images (B, C, *S) to probabilities (B, 1, *S) of the same size, such as
            ``TwoStageSegmenter.stage_1`` of a network with trained stage 1.
        device: where ``stage_1`` computes.
        probability_key: key of the probability.
        uncertainty_key: key of the uncertainty: the binary entropy in bits, plus 0.01 so that no pixel is never seen.

    Raises:
        ValueError: the probabilities have another shape than (1, 1, *S).
    """

    def __init__(
        self,
        keys: KeysCollection,
        stage_1: Callable[[torch.Tensor], torch.Tensor],
        *,
        device: str | torch.device = "cpu",
        probability_key: str = "stage_1",
        uncertainty_key: str = "uncertainty",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.stage_1 = stage_1
        self.device = device
        self.probability_key = probability_key
        self.uncertainty_key = uncertainty_key

    @torch.no_grad()
    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Return a copy of ``data`` with both maps added."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            plain = convert_to_tensor(image, track_meta=False)
            probability = self.stage_1(plain[None].to(self.device)).cpu()
            if probability.shape != (1, 1, *plain.shape[1:]):
                raise ValueError(
                    f"stage 1 gave {tuple(probability.shape)} for an image of {tuple(plain.shape)}: expected one "
                    "foreground probability a pixel."
                )
            rest = 1 - probability
            entropy = -(torch.xlogy(probability, probability) + torch.xlogy(rest, rest)) / torch.log(torch.tensor(2.0))
            result[self.probability_key] = convert_to_dst_type(probability[0], image)[0]
            result[self.uncertainty_key] = convert_to_dst_type(entropy[0] + 0.01, image)[0]
        return result
