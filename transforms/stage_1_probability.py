"""What stage 1 of a two-stage segmentation says about an image, as an item of the sample."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor


class Stage1Probabilityd(MapTransform):
    """Image (C, *S) in; it, its stage-1 foreground probability (1, *S) and the uncertainty of that (1, *S) out.

    Stage 2 is trained on windows. With this transform before the random ones, the windows can be drawn where stage 1 is
    unsure (``RandWeightedCropd`` with ``w_key="uncertainty"``), and stage 2 can see the probability beside the image.
    It is deterministic, so a ``CacheDataset`` runs stage 1 once an image.

    Args:
        keys: key of the image.
        stage_1: images (B, C, *S) in, probabilities (B, 1, *S) of the same size out, such as
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
