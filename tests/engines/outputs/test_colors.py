"""Tests of the one palette: how far its colours are apart, in whose eyes, and that old pictures stay true."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from skimage.color import rgb2lab

from clinbundles.engines.outputs.colors import CELLS, CLASSES, OUTCOMES, PREDICTION, WRONG, cielab, class_colors

ROOT = Path(__file__).parents[3]
PUBLISHED = [(0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66)]


def smallest_distance(lab: np.ndarray) -> float:
    return min(float(np.linalg.norm(one - other)) for one, other in combinations(lab, 2))


def test_the_first_seven_classes_have_the_colours_of_published_pictures() -> None:
    assert list(class_colors(30))[:7] == list(class_colors(7)) == PUBLISHED
    assert class_colors(2) == tuple(PUBLISHED[:2])


def test_the_first_twenty_are_as_far_apart_in_cielab_as_the_seven_of_okabe_and_ito() -> None:
    seven, twenty = (rgb2lab(np.array(class_colors(n))[None] / 255)[0] for n in (7, 20))
    assert smallest_distance(twenty) >= smallest_distance(seven) - 1e-9 > 26


@pytest.mark.parametrize("sight", [1, 2], ids=["without red cones", "without green cones"])
def test_the_colour_blind_tell_the_first_twenty_apart(sight: int) -> None:
    assert smallest_distance(cielab(np.array(class_colors(20)))[sight]) > 16


def test_more_classes_keep_their_colours_and_get_ones_that_differ_and_are_not_grey() -> None:
    colors = class_colors(255)
    assert colors[:20] == class_colors(20)
    assert len({*colors, WRONG}) == 256
    assert min(max(color) - min(color) for color in colors) >= 30


def test_cielab_is_that_of_scikit_image_and_blind_eyes_see_grey_as_it_is() -> None:
    colors = np.array([*CLASSES, *CELLS, PREDICTION, (0, 0, 0), (255, 255, 255)])
    np.testing.assert_allclose(cielab(colors)[0], rgb2lab(colors[None] / 255)[0], atol=0.01)
    grey = cielab(np.array([(128, 128, 128)]))
    np.testing.assert_allclose(grey[1:], grey[[0, 0]], atol=0.01)
    red, green = cielab(np.array([(160, 60, 0), (100, 100, 0)])).swapaxes(0, 1)
    apart = np.linalg.norm(red - green, axis=-1)
    assert apart[2] < apart[0] / 2  # they differ less without the cones for green


def test_no_other_module_has_colours_of_its_own() -> None:
    colors = [*PUBLISHED, PREDICTION, *OUTCOMES.values()]
    pattern = "|".join(rf"[(\[]{red}, {green}, {blue}\b" for red, green, blue in colors)
    files = [path for folder in ("transforms", "nets", "engines", "scripts") for path in (ROOT / folder).rglob("*.py")]
    named = [path.relative_to(ROOT).as_posix() for path in files if re.search(pattern, path.read_text())]
    assert named == ["engines/outputs/colors.py"]
