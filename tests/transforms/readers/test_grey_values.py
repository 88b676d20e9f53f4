import numpy as np
import pytest

from clinbundles.transforms.readers import grey_values
from clinbundles.transforms.readers.grey_values import count_values, look_up


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(7, 5), (1, 1001), (1001, 1), (9, 8, 3), (0, 5)])
def test_every_pixel_is_counted_once_whatever_the_parts(
    kind: type, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grey_values, "_PART", 16)
    values = np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, shape).astype(kind)
    for view in (values, values[::-1, ::-1], values.swapaxes(0, 1)[:1].swapaxes(0, 1)):
        counts = count_values(view)
        assert counts.shape == (np.iinfo(kind).max + 1,)
        assert np.array_equal(counts, np.bincount(view.ravel(), minlength=len(counts)))


def test_numbers_of_another_type_are_not_counted() -> None:
    with pytest.raises(ValueError, match="expected values of uint8 or uint16, got int16"):
        count_values(np.zeros((2, 2), dtype=np.int16))


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16, ">u2"])
def test_each_pixel_gets_the_entry_of_its_number_and_negative_ones_count_from_the_end(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grey_values, "_PART", 8)
    values = np.arange(-50 if np.iinfo(kind).min else 0, 50).reshape(10, -1).astype(kind)
    table = np.zeros(100, dtype=np.uint8)
    table[np.arange(-50, 50)] = np.arange(-50, 50) + 100
    for view in (values, values[::-1], values.T):
        entries = look_up(table, view)
        assert entries.dtype == np.uint8
        assert np.array_equal(entries, view.astype(int) + 100)


def test_a_number_beyond_the_table_is_an_error() -> None:
    with pytest.raises(IndexError):
        look_up(np.zeros(4, dtype=np.uint8), np.full((2, 2), 4, dtype=np.uint16))
