from pathlib import Path

import numpy as np
import pytest

from clinbundles.transforms.readers.chest_xray import ChestXRayReader
from clinbundles.transforms.readers.plausibility import plausibility

RAMP = np.tile(np.arange(256, dtype=np.uint8), (100, 1))  # each grey value 100 times


def test_a_ramp_of_greys_is_plausible_and_so_is_its_negative() -> None:
    assert plausibility(RAMP) == ""
    assert plausibility(255 - RAMP) == ""


def test_few_grey_values_are_told_with_their_number() -> None:
    assert plausibility(RAMP // 16 * 17) == ""  # 16 of them
    assert plausibility(RAMP // 18 * 17) == "It has 15 grey values, expected 16 or more."


def test_a_narrow_span_is_told_whatever_a_hundredth_of_the_pixels_is() -> None:
    narrow = RAMP // 8 + 100
    assert plausibility(narrow) == (
        "Its grey values span 31 levels of 255 but for the darkest and the brightest hundredth, expected 32 or more."
    )
    narrow[0, :200] = 255  # a marker
    narrow[1, :200] = 0
    assert "span 31 levels" in plausibility(narrow)
    wide = RAMP // 7 + 100
    assert plausibility(wide) == ""


@pytest.mark.parametrize(("value", "share", "word"), [(255, 0.5, "white"), (0, 0.9, "black")])
def test_white_and_black_are_told_beyond_their_share_and_not_at_it(value: int, share: float, word: str) -> None:
    grey = np.clip(RAMP, 1, 254)
    grey[: round(100 * share)] = value
    assert plausibility(grey) == ""
    grey[round(100 * share), :128] = value
    assert plausibility(grey).endswith(f"of its pixels are {word}.")


@pytest.mark.parametrize("bad", [RAMP.astype(np.uint16), RAMP[None], RAMP[:0]])
def test_what_is_no_grey_image_of_8_bits_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected grey values uint8 \(H, W\)"):
        plausibility(bad)


@pytest.mark.parametrize(("folder", "count"), [("kermany", 1519), ("covid_chestxray", 756), ("nih_chestxray", 462)])
def test_no_published_x_ray_is_warned_of(shared_data: Path, folder: str, count: int) -> None:
    paths = [
        path for path in sorted((shared_data / folder).rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    ]
    assert len(paths) == count
    reader = ChestXRayReader(force=True)
    assert [path.name for path in paths if plausibility(reader.read(path))] == []
