import unicodedata

import pytest

from clinbundles.transforms.gaze.stimuli import match_stimuli

IMAGES = ["f0.png", "f1.png", "Köln.jpg"]


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("f0.png", "f0.png"),
        ("F0.PNG", "f0.png"),
        ("f1", "f1.png"),
        ("F1", "f1.png"),
        ("C:\\stimuli\\f0.png", "f0.png"),
        ("stimuli/F0", "f0.png"),
        (unicodedata.normalize("NFD", "köln"), "Köln.jpg"),
    ],
)
def test_a_name_fits_an_image_whatever_its_case_suffix_or_folder(name, image):
    assert match_stimuli(["Instructions", name], IMAGES) == {name: image}


def test_an_exact_name_goes_before_any_other_that_fits():
    assert match_stimuli(["f0.png", "F0.png"], ["f0.png", "F0.png"]) == {"f0.png": "f0.png", "F0.png": "F0.png"}


@pytest.mark.parametrize("names", [["f0.jpg"], ["f"], ["f0.png.bak"], [""]])
def test_another_name_fits_none(names):
    assert match_stimuli(names, IMAGES) == {}


def test_a_name_that_fits_two_images_is_refused():
    with pytest.raises(ValueError, match=r"name 'F0' fits both f0\.png and f0\.jpg"):
        match_stimuli(["F0"], ["f0.png", "f0.jpg"])


def test_two_names_that_fit_one_image_are_refused():
    with pytest.raises(ValueError, match=r"names 'f0\.png' and 'F0' both fit the image f0\.png"):
        match_stimuli(["f0.png", "F0"], IMAGES)
