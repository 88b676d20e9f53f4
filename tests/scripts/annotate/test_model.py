from pathlib import Path

import numpy as np

from clinbundles.scripts.annotate.model import network_model

SAMPLES = Path(__file__).parents[3] / "bundles" / "pace_cell_segmentation" / "samples"


def test_the_shipped_network_is_certain_in_the_middle_of_a_nucleus_and_at_the_corner_of_its_box() -> None:
    model = network_model("pace_cell_segmentation", None)
    # The uppermost nucleus of this image.
    box = [0.0, 41.0, 11.0, 13.0]
    pixels = np.array([[5, 47], [10, 53], [5, 40]])
    values = model(SAMPLES / "images" / "07761fa3.png", box, pixels)
    assert values is not None
    assert values[0] > 0.9
    assert values[1] < 0.5
    assert model(SAMPLES / "images" / "07761fa3.png", [120.0, 120, 20, 20], pixels) is None
