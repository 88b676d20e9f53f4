import numpy as np
import pytest

from clinbundles.transforms.readers.dicom_tables import FieldError, LookUpTable, look_up_table

SQUARES = np.arange(16) ** 2  # 0 to 225


def table_of(descriptor: object, data: object, *, little_endian: bool = True) -> LookUpTable:
    return look_up_table(descriptor, data, "the table", little_endian=little_endian)


@pytest.mark.parametrize("bits", [8, 16])
def test_entries_are_the_same_in_every_packing_whatever_the_bits_say(bits: int) -> None:
    bytes_ = SQUARES.astype(np.uint8)
    packings = {
        "words as numbers": SQUARES.tolist(),
        "words": SQUARES.astype("<u2").tobytes(),
        "bytes": bytes_.tobytes(),
        "two entries a word": bytes_.view("<u2").tolist(),
    }
    for name, data in packings.items():
        np.testing.assert_array_equal(table_of([16, 0, bits], data).entries, SQUARES, err_msg=name)
    big = {"words": SQUARES.astype(">u2"), "two entries a word": bytes_.view("<u2").astype(">u2")}
    for name, data in big.items():
        entries = table_of([16, 0, bits], data.tobytes(), little_endian=False).entries
        np.testing.assert_array_equal(entries, SQUARES, err_msg=name)


def test_an_odd_number_of_bytes_and_65536_entries_are_read() -> None:
    np.testing.assert_array_equal(table_of([3, 0, 8], bytes([1, 2, 3, 0])).entries, [1, 2, 3])
    np.testing.assert_array_equal(table_of([3, 0, 8], bytes([1, 2, 3])).entries, [1, 2, 3])
    whole = np.arange(2**16)
    np.testing.assert_array_equal(table_of([0, 0, 16], whole.astype("<u2").tobytes()).entries, whole)


def test_numbers_read_as_signed_are_unsigned_entries() -> None:
    np.testing.assert_array_equal(table_of([2, 0, 16], [-1, -32768]).entries, [65535, 32768])
    assert len(table_of([-25536, 0, 16], list(range(40000))).entries) == 40000


@pytest.mark.parametrize(
    ("largest", "bits", "white"),
    [
        (4095, 12, 4095),
        (4095, 16, 4095),  # as Agfa writes them
        (4000, 16, 4095),
        (4096, 16, 4095),
        (32767, 16, 32767),
        (32768, 16, 65535),
        (40000, 16, 65535),
        (3000, 12, 4095),
        (200, 8, 255),
        (128, 8, 255),
        (4095, 8, 4095),
        (300, 8, 511),
        (255, 16, 255),
        (1, 16, 1),
        (0, 16, 1),
        (255, 0, 255),
    ],
)
def test_white_is_by_the_bits_unless_the_entries_use_half_of_them_or_go_beyond(
    largest: int, bits: int, white: int
) -> None:
    assert LookUpTable(np.array([0, largest]), 0, bits).white == white


@pytest.mark.parametrize("first", [-1000, 64536])
def test_the_first_number_is_signed_for_signed_numbers(first: int) -> None:
    table = LookUpTable(np.arange(2000), first, 16)
    assert table.look_up(np.array([-2000, -1000, 0, 999, 1500])).tolist() == [0, 0, 1000, 1999, 1999]


@pytest.mark.parametrize("first", [-25536, 40000])
def test_the_first_number_is_unsigned_for_unsigned_numbers(first: int) -> None:
    table = LookUpTable(np.arange(2000), first, 16)
    assert table.look_up(np.array([39000, 40000, 41000, 60000])).tolist() == [0, 0, 1000, 1999]


def test_numbers_are_rounded_to_the_next_entry() -> None:
    assert LookUpTable(np.array([10, 20, 30]), 5, 8).look_up(np.array([5.4, 5.6, 7.0])).tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    ("descriptor", "data", "fault"),
    [
        (None, [1, 2], "the table is incomplete"),
        ([2, 0], [1, 2], "the table is incomplete"),
        ([2, 0, 8], None, "the table is incomplete"),
        ([4, 0, 16], [1, 2, 3], "the table has 3 entries, its descriptor says 4"),
        ([0, 0, 16], [1, 2, 3], "the table has 3 entries, its descriptor says 65536"),
        ([9, 0, 16], [1, 2], "the table has 2 entries, its descriptor says 9"),
    ],
)
def test_tables_whose_parts_do_not_belong_together_are_refused(descriptor: object, data: object, fault: str) -> None:
    with pytest.raises(FieldError, match=fault):
        table_of(descriptor, data)
