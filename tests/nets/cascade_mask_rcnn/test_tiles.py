"""Discs that a made-up network finds exactly, in one piece and by tiles."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from clinbundles.nets.cascade_mask_rcnn.instances import label_map
from clinbundles.nets.cascade_mask_rcnn.tiles import TiledInstanceInferer, as_detection, merge


class Finder(nn.Module):
    """Finds every connected region of an image, with its own mask, and scores it by its mean brightness."""

    label_score_threshold = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.detections: list[dict[str, torch.Tensor]] = []
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(images.shape[-2:]))
        self.detections = [self.find(image[0]) for image in images]
        size = (images.shape[2], images.shape[3])
        maps = [label_map(one, size, score_threshold=self.label_score_threshold) for one in self.detections]
        return torch.stack(maps)[:, None]

    @classmethod
    def find(cls, image: torch.Tensor) -> dict[str, torch.Tensor]:
        regions, _ = ndimage.label(image.numpy() > 0)
        boxes, masks, scores = [], [], []
        for number, (rows, columns) in enumerate(ndimage.find_objects(regions), start=1):
            mask = torch.from_numpy(regions[rows, columns] == number).float()
            boxes.append([columns.start, rows.start, columns.stop, rows.stop])
            masks.append(nn.functional.interpolate(mask[None, None], (28, 28), mode="area")[0, 0])
            scores.append(float(image[rows, columns][mask > 0].mean()))
        order = torch.tensor(scores).argsort(descending=True, stable=True)
        found = {"boxes": torch.tensor(boxes).float().reshape(-1, 4), "scores": torch.tensor(scores)}
        found["masks"] = torch.stack(masks) if masks else torch.zeros(0, 28, 28)
        return {name: values[order] for name, values in found.items()}


def picture(ellipses: list[tuple[float, float, float, float]], size: tuple[int, int] = (200, 300)) -> torch.Tensor:
    """Ellipses by row, column and half axes, each with a brightness of its own, (1, 3, H, W)."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    image = np.zeros(size, dtype=np.float32)
    for number, (y, x, b, a) in enumerate(ellipses):
        image[((rows - y) / b) ** 2 + ((columns - x) / a) ** 2 <= 1] = 0.6 + 0.3 * number / len(ellipses)
    return torch.from_numpy(image)[None, None].repeat(1, 3, 1, 1)


def both(image: torch.Tensor, **options: int) -> tuple[np.ndarray, np.ndarray, Finder]:
    """Label maps of the whole image and by tiles, and the network after the latter."""
    network = Finder()
    whole = network(image)[0, 0].numpy()
    network.sizes.clear()
    tiled = TiledInstanceInferer(**options)(image, network)
    assert tiled.shape == (1, 1, *image.shape[2:])
    assert tiled.dtype == torch.int32
    return whole, tiled[0, 0].numpy(), network


def same_cells(whole: np.ndarray, tiled: np.ndarray) -> None:
    """Each cell has one number in both maps, and nearly the same pixels."""
    assert len(np.unique(whole)) == len(np.unique(tiled))
    for number in np.unique(whole)[1:]:
        mask = whole == number
        values, counts = np.unique(tiled[mask], return_counts=True)
        own = values[counts.argmax()]
        union = (mask | (tiled == own)).sum()
        assert own > 0
        assert counts.max() / union > 0.93


def test_a_small_image_goes_through_as_it_is() -> None:
    whole, tiled, network = both(picture([(50, 60, 9, 12)]), tile_size=300, overlap=20)
    assert (whole == tiled).all()
    assert network.sizes == [(200, 300)]


def test_cells_on_seams_and_corners_are_counted_once() -> None:
    # Tiles of 100 begin every 70 px: centres on their starts, on their ends and between.
    ellipses = [(y, x, 7, 10) for y in range(15, 200, 17) for x in range(15, 295, 24)]
    whole, tiled, network = both(picture(ellipses), tile_size=100, overlap=30)
    assert len(np.unique(whole)) == len(ellipses) + 1
    same_cells(whole, tiled)
    assert len(network.detections[0]["boxes"]) == len(ellipses)
    assert network.sizes == [(100, 100)] * 3 * 4
    scores = network.detections[0]["scores"]
    assert (scores.diff() <= 0).all()


@pytest.mark.parametrize(("half_height", "half_width"), [(9, 120), (80, 12), (8, 45)])
def test_a_cell_longer_than_the_overlap_is_joined_across_tiles(half_height: int, half_width: int) -> None:
    whole, tiled, network = both(
        picture([(100, 150, half_height, half_width), (20, 20, 8, 8)]), tile_size=100, overlap=30
    )
    same_cells(whole, tiled)
    box = network.detections[0]["boxes"][network.detections[0]["boxes"][:, 0] > 0].amax(dim=0)
    assert box[2] == pytest.approx(150 + half_width, abs=2)


def test_neighbours_that_touch_a_seam_stay_two() -> None:
    # Long cells, side by side, two px apart.
    whole, tiled, _ = both(picture([(90, 150, 7, 100), (107, 150, 7, 100)]), tile_size=100, overlap=30)
    same_cells(whole, tiled)


def test_the_threshold_of_the_network_holds_and_detections_are_kept() -> None:
    network = Finder()
    network.label_score_threshold = 0.7
    image = picture([(50, 60, 9, 12), (50, 160, 9, 12)])
    tiled = TiledInstanceInferer(100, 30)(image, network)
    assert len(np.unique(tiled)) == 2
    assert network.detections[0]["scores"].tolist() == pytest.approx([0.75, 0.6])


def test_images_of_a_batch_are_kept_apart_and_one_may_be_empty() -> None:
    network = Finder()
    images = torch.cat([picture([(50, 60, 9, 12)]), picture([]), picture([(20, 99, 9, 12), (120, 99, 9, 12)])])
    tiled = TiledInstanceInferer(100, 30)(images, network)
    assert [len(np.unique(one)) - 1 for one in tiled.numpy()] == [1, 0, 2]
    assert [len(one["boxes"]) for one in network.detections] == [1, 0, 2]


def test_thousands_of_cells_are_merged_in_a_moment() -> None:
    network = Finder()
    ellipses = [(y, x, 4, 4) for y in range(8, 600, 11) for x in range(8, 600, 11)]
    tiled = TiledInstanceInferer(256, 40)(picture(ellipses, (600, 600)), network)
    assert len(np.unique(tiled)) == len(ellipses) + 1


def test_a_network_without_detections_sees_the_whole_image() -> None:
    network = nn.Identity()
    image = picture([(50, 60, 9, 12)])
    assert torch.equal(TiledInstanceInferer(100, 30)(image, network), image)


def test_nothing_is_merged_to_nothing() -> None:
    empty = as_detection(merge([]))
    assert empty["boxes"].shape == (0, 4)
    assert empty["masks"].shape == (0, 28, 28)


class Shortsighted(Finder):
    """Finds half of a cell near the border of what it sees, and is sure of it."""

    @classmethod
    def find(cls, image: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = image.clone()
        regions, _ = ndimage.label(image.numpy() > 0)
        for rows, columns in ndimage.find_objects(regions):
            if min(columns.start, image.shape[1] - columns.stop) < 8:
                seen[rows, columns.start : (columns.start + columns.stop) // 2] = 0
                seen[rows, columns] *= 1.3
        return super().find(seen)


def test_a_cell_is_taken_from_the_tile_that_sees_it_farther_inside() -> None:
    network = Shortsighted()
    image = picture([(50, x, 8, 8) for x in range(30, 280, 20)], (100, 310))
    whole = network(image)[0, 0].numpy()
    same_cells(whole, TiledInstanceInferer(100, 40)(image, network)[0, 0].numpy())
    assert len(network.detections[0]["boxes"]) == 13


@pytest.mark.parametrize("middle", range(110, 150, 5))
def test_a_part_of_a_higher_score_does_not_replace_the_whole(middle: int) -> None:
    # Tiles begin at 0, 80 and 120: the last two have more in common than the overlap. Brighter parts score higher.
    image = picture([(50, middle, 12, 35)], (100, 220)) * torch.linspace(0.9, 1.5, 220)
    whole, tiled, _ = both(image, tile_size=100, overlap=20)
    same_cells(whole, tiled)


@pytest.mark.parametrize("overlap", [0, 50])
def test_tiles_without_overlap_or_all_of_it_are_refused(overlap: int) -> None:
    message = f"tile_size is 100 and overlap {overlap}: tiles overlap, and are larger than two overlaps"
    with pytest.raises(ValueError, match=message):
        TiledInstanceInferer(100, overlap)


def test_a_network_that_scales_its_images_is_not_given_tiles() -> None:
    network = Finder()
    network.min_size = 800
    with pytest.raises(ValueError, match="300x200 px goes by tiles of 100 px, and image_size would scale each of them"):
        TiledInstanceInferer(100, 30)(picture([(50, 60, 9, 12)]), network)
    TiledInstanceInferer(300, 30)(picture([(50, 60, 9, 12)]), network)
