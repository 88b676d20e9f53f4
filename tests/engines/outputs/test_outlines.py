import json

import numpy as np
import pytest
from matplotlib.path import Path
from scipy import ndimage

from clinbundles.engines.outputs.outlines import polygons


def area(ring: list[list[int]]) -> float:
    """Signed: positive for an outer ring, negative for a hole."""
    x, y = np.array(ring[:-1]).T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2


def test_a_pixel_is_a_square_and_a_straight_edge_has_no_corners_between() -> None:
    assert polygons(np.ones((1, 1), dtype=bool), top=4, left=7) == [[[[7, 4], [8, 4], [8, 5], [7, 5], [7, 4]]]]
    assert polygons(np.ones((2, 9), dtype=bool)) == [[[[0, 0], [9, 0], [9, 2], [0, 2], [0, 0]]]]
    assert polygons(np.zeros((3, 3), dtype=bool)) == []


def test_a_hole_is_a_ring_of_its_own_that_goes_round_the_other_way() -> None:
    mask = np.ones((5, 6), dtype=bool)
    mask[1:3, 2:4] = False
    ((outer, hole),) = polygons(mask)
    assert (area(outer), area(hole)) == (30, -4)


def test_pixels_that_touch_by_a_corner_are_all_outlined() -> None:
    parts = polygons(np.eye(4, dtype=bool))
    assert [area(outer) for (outer,) in parts] == [1] * 4


@pytest.mark.parametrize("density", [0.2, 0.5, 0.8])
def test_polygons_hold_the_pixels_of_any_mask_and_no_ring_meets_itself(density: float) -> None:
    generator = np.random.default_rng(0)
    middles = np.stack(np.meshgrid(np.arange(14), np.arange(12)), axis=-1).reshape(-1, 2) + 0.5
    for _ in range(40):
        mask = generator.random((12, 14)) < density
        inside = np.zeros(mask.size, dtype=int)
        parts = polygons(mask)
        assert len(parts) == ndimage.label(mask)[1]
        for rings in parts:
            for number, ring in enumerate(rings):
                assert ring[0] == ring[-1]
                assert len({tuple(corner) for corner in ring}) == len(ring) - 1
                assert (area(ring) > 0) == (number == 0)
                inside += np.sign(area(ring)).astype(int) * Path(ring).contains_points(middles)
        assert (inside.reshape(mask.shape) == mask).all()
        assert sum(area(ring) for rings in parts for ring in rings) == mask.sum()
        json.dumps(parts)
