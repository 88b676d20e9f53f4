import numpy as np
import pytest

from clinbundles.scripts.audit.grad_cam import pick, share_inside


def test_an_even_map_has_the_share_that_the_fields_cover() -> None:
    fields = np.zeros((64, 64), dtype=bool)
    fields[:16] = True
    assert share_inside(np.ones((4, 4), dtype=np.float32), fields) == pytest.approx(0.25)
    top = np.zeros((4, 4), dtype=np.float32)
    top[0] = 1
    assert share_inside(top, fields) > 0.8
    assert share_inside(top[::-1].copy(), fields) == 0
    assert np.isnan(share_inside(np.zeros((4, 4), dtype=np.float32), fields))


def test_pictures_are_drawn_of_every_class_and_the_same_ones_each_time() -> None:
    items = [{"label": label} for label in [0] * 10 + [1] * 5 + [2]]
    chosen = pick(items, per_class=3, seed=1)
    assert sorted(items[k]["label"] for k in chosen) == [0, 0, 0, 1, 1, 1, 2]
    assert chosen == sorted(set(chosen))
    assert chosen == pick(items, per_class=3, seed=1)
