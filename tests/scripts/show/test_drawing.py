from types import ModuleType

import matplotlib.pyplot as plt
import numpy as np
import pytest


@pytest.fixture(scope="module")
def module(load_script) -> ModuleType:
    return load_script("show.drawing")


def count(picture: np.ndarray, color: tuple[int, int, int]) -> int:
    """Pixels of about one colour."""
    return int((np.abs(picture.astype(int) - color).sum(-1) < 30).sum())


def test_hits_misses_and_false_alarms_have_their_own_colours_and_make_the_dice(module: ModuleType) -> None:
    truth, mask = np.zeros((2, 8, 8), dtype=bool)
    truth[:, :4], mask[:, 3:5] = True, True  # 8 hits, 24 misses, 8 false alarms
    axis = plt.figure().subplots()
    dice = module.draw_outcomes(axis, np.zeros((8, 8, 3), np.uint8), mask, truth, name="half")
    assert dice == pytest.approx(2 * 8 / (32 + 16))
    assert axis.get_title() == "half: Dice 0.333"
    picture = axis.images[0].get_array()
    strong = {outcome: tuple(int(0.75 * c) for c in color) for outcome, color in module.OUTCOMES.items()}
    assert {outcome: count(picture, color) for outcome, color in strong.items()} == {
        "hit": 8,
        "miss": 24,
        "false alarm": 8,
    }
    assert {text.get_text() for text in axis.get_legend().get_texts()} == set(module.OUTCOMES)
    plt.close()
