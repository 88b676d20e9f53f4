"""Cells by Otsu's threshold and a watershed: what a network has to be better than."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label
from skimage.morphology import remove_small_objects
from skimage.segmentation import watershed
from torch import nn


class OtsuWatershed(nn.Module):
    """Find cells without any training, in images that are RGB of 0 to 1 (B, 3, H, W).

    The grey image is smoothed and cut by Otsu's threshold. Of both sides the one that covers less of the image's edge
    is cells: bright on dark or dark on bright. Holes are filled, and touching cells are parted by a watershed of the
    distance to the background.

    Args:
        sigma: standard deviation of the smoothing in px.
        min_distance: least distance in px between the middles of two cells.
        min_area: smallest cell in px.

    Returns:
        label maps int32 (B, 1, H, W), 0 for background.

    Source: Otsu, A threshold selection method from gray-level histograms, 1979; scikit-image's example of a watershed.
    """

    def __init__(self, sigma: float = 1.0, min_distance: int = 8, min_area: int = 20) -> None:
        super().__init__()
        self.sigma = sigma
        self.min_distance = min_distance
        self.min_area = min_area

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the label maps."""
        maps = [self._find(image.mean(dim=0).detach().cpu().numpy()) for image in images]
        return torch.from_numpy(np.stack(maps))[:, None].to(images.device)

    def _find(self, grey: np.ndarray) -> np.ndarray:
        smooth = gaussian(grey.astype(float), self.sigma)
        if smooth.min() == smooth.max():
            return np.zeros(grey.shape, dtype=np.int32)
        cells = smooth > threshold_otsu(smooth)
        edge = np.concatenate([cells[0], cells[-1], cells[:, 0], cells[:, -1]])
        cells = ndimage.binary_fill_holes(~cells if edge.mean() > 0.5 else cells)
        cells = remove_small_objects(cells, max_size=self.min_area - 1)
        distance = gaussian(ndimage.distance_transform_edt(cells), self.sigma)
        middles = peak_local_max(distance, min_distance=self.min_distance, labels=label(cells), exclude_border=False)
        markers = np.zeros(grey.shape, dtype=np.int32)
        markers[tuple(middles.T)] = np.arange(1, len(middles) + 1)
        return watershed(-distance, markers, mask=cells).astype(np.int32)
