import copy
import json
import logging
import math

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, Flipd, Resized
from scipy.ndimage import gaussian_filter

from clinbundles.transforms.gaze.attention_map import GazeToAttentionMap, GazeToAttentionMapd, as_observers, check_gaze

HEIGHT, WIDTH = 48, 64
SIZE = (HEIGHT, WIDTH)


def at_pixel(row, column, duration=200.0):
    return [(column + 0.5) / WIDTH, (row + 0.5) / HEIGHT, duration]


def peak(attention):
    return divmod(int(attention[0].argmax()), attention.shape[2])


def test_one_fixation_gives_a_gaussian_with_its_peak_at_the_fixation():
    attention = GazeToAttentionMap(sigma_px=5.0)([[at_pixel(20, 30)]], SIZE)
    assert attention.shape == (1, HEIGHT, WIDTH)
    assert attention.dtype == torch.float32
    assert peak(attention) == (20, 30)
    assert attention.max() == 1
    assert attention.min() == 0
    for distance in (1, 5, 8):
        assert float(attention[0, 20, 30 + distance]) == pytest.approx(math.exp(-(distance**2) / 50), abs=1e-4)
        assert attention[0, 20, 30 + distance] == attention[0, 20 - distance, 30]


def test_x_runs_along_the_width_and_y_down_the_height():
    attention = GazeToAttentionMap(sigma_px=3.0)([[[0.9, 0.1, 100]]], SIZE)
    row, column = peak(attention)
    assert row < HEIGHT / 4
    assert column > 3 * WIDTH / 4


def test_the_middle_of_an_even_image_lies_between_its_four_central_pixels():
    attention = GazeToAttentionMap(sigma_px=3.0)([[[0.5, 0.5, 100]]], SIZE)
    torch.testing.assert_close(attention, attention.flip(1))
    torch.testing.assert_close(attention, attention.flip(2))
    centre = attention[0, HEIGHT // 2 - 1 : HEIGHT // 2 + 1, WIDTH // 2 - 1 : WIDTH // 2 + 1]
    assert (centre == 1).all()


def test_a_shift_of_half_a_pixel_is_seen():
    maps = [GazeToAttentionMap(sigma_px=3.0)([[at_pixel(20, column)]], SIZE) for column in (30, 30.5, 31)]
    assert float(maps[1][0, 20, 30]) == pytest.approx(float(maps[1][0, 20, 31]))
    assert maps[0][0, 20, 30] > maps[0][0, 20, 31]
    assert maps[2][0, 20, 30] < maps[2][0, 20, 31]


def test_it_equals_the_blur_of_rasterised_durations():
    rng = np.random.RandomState(0)
    raster, fixations = np.zeros(SIZE), []
    for _ in range(25):
        row, column, duration = rng.randint(HEIGHT), rng.randint(WIDTH), rng.uniform(70, 630)
        raster[row, column] += duration
        fixations.append(at_pixel(row, column, duration))
    blurred = gaussian_filter(raster, 4.0, mode="constant", truncate=20)
    expected = (blurred - blurred.min()) / (blurred.max() - blurred.min())
    attention = GazeToAttentionMap(sigma_px=4.0)(fixations, SIZE)
    np.testing.assert_allclose(attention[0].numpy(), expected, atol=1e-6)


def test_a_spot_looked_at_twice_as_long_is_twice_as_bright():
    attention = GazeToAttentionMap(sigma_px=2.0)([[at_pixel(24, 12, 600), at_pixel(24, 52, 300)]], SIZE)
    assert float(attention[0, 24, 52] / attention[0, 24, 12]) == pytest.approx(0.5, abs=1e-4)


def test_a_spot_seen_twice_counts_like_one_seen_for_the_sum_of_both_times():
    transform = GazeToAttentionMap(sigma_px=2.0)
    other = at_pixel(10, 10, 400)
    twice = transform([[at_pixel(30, 40, 100), at_pixel(30, 40, 150), other]], SIZE)
    once = transform([[at_pixel(30, 40, 250), other]], SIZE)
    torch.testing.assert_close(twice, once)


def test_each_observer_counts_the_same_however_long_the_look():
    brief, long = [at_pixel(24, 12, 100)], [at_pixel(24, 52, 5000)]
    attention = GazeToAttentionMap(sigma_px=2.0)([brief, long], SIZE)
    assert float(attention[0, 24, 12]) == pytest.approx(float(attention[0, 24, 52]))


def test_an_observer_without_gaze_changes_nothing():
    transform = GazeToAttentionMap(sigma_px=4.0)
    rows = [at_pixel(20, 30), at_pixel(10, 5)]
    expected = transform([rows], SIZE)
    assert torch.equal(transform([rows, []], SIZE), expected)
    assert torch.equal(transform([[], rows, [at_pixel(1, 1, 0.0)]], SIZE), expected)


@pytest.mark.parametrize("make", [list, np.array, torch.tensor], ids=["list", "array", "tensor"])
def test_one_observer_may_come_without_a_list_around(make):
    rows = [at_pixel(20, 30), at_pixel(10, 5), at_pixel(3, 60)]
    transform = GazeToAttentionMap(sigma_px=4.0)
    expected = transform([rows], SIZE)
    torch.testing.assert_close(transform(make(rows), SIZE), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(transform([make(rows)], SIZE), expected, atol=1e-5, rtol=0)
    assert len(as_observers(make(rows))) == 1
    assert len(as_observers([make(rows), make(rows)])) == 2


@pytest.mark.parametrize(
    "fixations",
    [[], [[]], [[], []], np.empty((0, 3)), [[[0.5, 0.5, 0.0]]]],
    ids=["none", "one", "two", "array", "0 ms"],
)
def test_no_gaze_gives_zeros(fixations):
    attention = GazeToAttentionMap()(fixations, SIZE)
    assert attention.shape == (1, *SIZE)
    assert not attention.any()


def test_a_map_without_contrast_gives_zeros():
    assert not GazeToAttentionMap(sigma_px=1e9)([[[0.5, 0.5, 100]]], SIZE).any()
    assert not GazeToAttentionMap()([[[0.5, 0.5, 100]]], (1, 1)).any()


@pytest.mark.parametrize("scale", [2, 5])
def test_sigma_refers_to_the_reference_size_and_shrinks_with_the_image(scale):
    fixations = [[at_pixel(20, 30), at_pixel(31, 11, 400)]]
    small = GazeToAttentionMap(sigma_px=6.0 * scale, reference_size=(HEIGHT * scale, WIDTH * scale))(fixations, SIZE)
    torch.testing.assert_close(small, GazeToAttentionMap(sigma_px=6.0)(fixations, SIZE))


def test_a_squeezed_image_squeezes_the_gaussian_along_the_same_axis():
    attention = GazeToAttentionMap(sigma_px=6.0, reference_size=(HEIGHT, 2 * WIDTH))([[at_pixel(20, 30)]], SIZE)
    assert float(attention[0, 26, 30]) == pytest.approx(math.exp(-0.5), abs=1e-3)
    assert float(attention[0, 20, 33]) == pytest.approx(math.exp(-0.5), abs=1e-3)


def test_a_resized_map_is_the_map_of_the_resized_image():
    fixations = [[[0.31, 0.62, 300], [0.7, 0.4, 150]]]
    large = GazeToAttentionMap(sigma_px=40.0)(fixations, (384, 512))
    small = GazeToAttentionMap(sigma_px=40.0, reference_size=(384, 512))(fixations, (96, 128))
    averaged = torch.nn.functional.avg_pool2d(large, 4)
    assert float((averaged - small).abs().max()) < 0.01


def test_the_default_sigma_is_that_of_gazemedseg():
    assert GazeToAttentionMap().sigma_px == 70


def test_degrees_become_pixels_by_the_geometry_of_the_screen():
    transform = GazeToAttentionMap(sigma_deg=1.0, viewing_distance_mm=600.0, px_per_mm=3.8)
    assert transform.sigma_px == pytest.approx(2 * 600 * math.tan(math.radians(0.5)) * 3.8)
    assert transform.sigma_px == pytest.approx(39.8, abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma_px": 0}, "sigma_px is 0"),
        ({"sigma_px": float("nan")}, "sigma_px is nan"),
        ({"sigma_px": 70, "sigma_deg": 1}, "not both"),
        ({"sigma_deg": 1}, "needs viewing_distance_mm"),
        ({"sigma_deg": 180, "viewing_distance_mm": 600, "px_per_mm": 4}, "less than 180"),
        ({"sigma_px": 3, "px_per_mm": 4}, "go with sigma_deg"),
        ({"reference_size": (0, 4)}, "reference_size"),
        ({"reference_size": (4,)}, "reference_size"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        GazeToAttentionMap(**arguments)


@pytest.mark.parametrize(
    ("fixations", "message"),
    [
        ([[[0.5, 0.5, 100], [0.5, 0.5, -3.0]]], "fixation 1 of observer 0 .* negative duration_ms -3.0"),
        ([[], [[float("nan"), 0.5, 100]]], "fixation 0 of observer 1 is not finite"),
        ([[[0.5, 0.5, float("inf")]]], "not finite"),
        ([[[0.5, 0.5]]], r"shape \(1, 2\)"),
        ([[[0.5, 0.5, 1], [0.5, 0.5]]], "observer 0 are not rows of three numbers"),
        ([[["left", 0.5, 1]]], "observer 0 are not rows of three numbers"),
        ([[0.5, 0.5, 1], [0.5, 0.5]], "not rows of three numbers"),
        ([0.5, 0.5, 100], "expected a list over observers"),
        (7, "expected a list over observers"),
    ],
)
def test_bad_fixations_are_named(fixations, message):
    with pytest.raises(ValueError, match=message):
        GazeToAttentionMap()(fixations, SIZE)


def test_a_sigma_that_shrinks_to_nothing_is_refused():
    with pytest.raises(ValueError, match="vanish between pixels"):
        GazeToAttentionMap(sigma_px=1.0, reference_size=(1000, 1000))([[[0.5, 0.5, 100]]], (100, 100))


def test_fixations_outside_the_image_are_dropped_and_counted(caplog):
    transform = GazeToAttentionMap(sigma_px=4.0)
    rows = [at_pixel(20, 30), [0.0, 1.0, 50]]
    with caplog.at_level(logging.DEBUG, logger="clinbundles.transforms.gaze.attention_map"):
        attention = transform([[*rows, [1.01, 0.5, 900], [0.5, -0.2, 900]]], SIZE)
    assert torch.equal(attention, transform([rows], SIZE))
    assert [(record.levelname, record.args) for record in caplog.records] == [("DEBUG", (2, 4))]


def test_gaze_wholly_outside_gives_zeros_and_a_warning(caplog):
    assert not GazeToAttentionMap()([[[320.0, 240.0, 100]]], SIZE).any()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def sample():
    image = MetaTensor(torch.rand(3, HEIGHT, WIDTH), affine=torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0])))
    image.meta["filename_or_obj"] = "polyp.png"
    return {"image": image, "fixations": [[at_pixel(8, 50), at_pixel(30, 40, 100)]]}


def test_the_dictionary_form_adds_the_map_of_the_image_and_keeps_the_input():
    item = sample()
    before = copy.deepcopy(item)
    out = GazeToAttentionMapd(sigma_px=4.0)(item)
    assert set(item) == {"image", "fixations"}
    assert item["fixations"] == before["fixations"]
    assert torch.equal(item["image"], before["image"])
    assert out["fixations"] is item["fixations"]
    assert torch.equal(out["attention"].as_tensor(), GazeToAttentionMap(sigma_px=4.0)(item["fixations"], SIZE))
    assert torch.equal(out["attention"].affine, item["image"].affine)
    assert out["attention"].meta["filename_or_obj"] == "polyp.png"
    out["attention"].meta["filename_or_obj"] = "map.png"
    assert item["image"].meta["filename_or_obj"] == "polyp.png"


@pytest.mark.parametrize("image", [torch.zeros(3, *SIZE), np.zeros((3, *SIZE), np.float32)], ids=["tensor", "array"])
def test_images_without_meta_data_give_a_plain_tensor(image):
    out = GazeToAttentionMapd(sigma_px=4.0)({"image": image, "fixations": [[at_pixel(8, 50)]]})
    assert type(out["attention"]) is torch.Tensor
    assert peak(out["attention"]) == (8, 50)


@pytest.mark.parametrize("lazy", [False, True])
def test_the_map_moves_with_the_image_through_later_transforms(lazy):
    keys = ["image", "attention"]
    pipeline = Compose(
        [
            GazeToAttentionMapd(sigma_px=6.0),
            Flipd(keys, spatial_axis=1),
            Resized(keys, spatial_size=(96, 128), mode="bilinear"),
        ],
        lazy=lazy,
    )
    out = pipeline(sample())
    assert out["attention"].shape == (1, 96, 128)
    assert out["image"].shape == (3, 96, 128)
    row, column = peak(out["attention"])
    assert abs(row - 17) <= 2
    assert abs(column - 2 * (WIDTH - 1 - 50)) <= 2
    torch.testing.assert_close(out["attention"].affine, out["image"].affine)


def test_a_lazy_image_is_resized_before_its_size_is_read():
    pipeline = Compose([Resized(["image"], spatial_size=(96, 128)), GazeToAttentionMapd(sigma_px=6.0)], lazy=True)
    assert pipeline(sample())["attention"].shape == (1, 96, 128)


def test_maps_of_images_of_one_size_make_a_batch():
    keep = Compose([GazeToAttentionMapd(sigma_px=6.0), lambda item: {"attention": item["attention"].as_tensor()}])
    batch = next(iter(DataLoader(Dataset([sample(), sample()], keep), batch_size=2)))
    assert batch["attention"].shape == (2, 1, *SIZE)
    assert torch.equal(batch["attention"][0], batch["attention"][1])


def test_the_original_size_of_each_image_may_set_its_sigma():
    item = sample() | {"original_size": [HEIGHT * 10, WIDTH * 10]}
    out = GazeToAttentionMapd(sigma_px=70.0, reference_size_key="original_size")(item)
    expected = GazeToAttentionMap(sigma_px=7.0)(item["fixations"], SIZE)
    torch.testing.assert_close(out["attention"].as_tensor(), expected)


def test_a_copy_of_half_the_size_has_the_same_map_resampled():
    fixations, original = [[[0.3, 0.4, 200], [0.7, 0.6, 100]]], (96, 128)
    transform = GazeToAttentionMapd(sigma_px=12.0, reference_size_key="original_size")

    def attention(scale):
        image = torch.zeros(3, *(side // scale for side in original))
        return transform({"image": image, "fixations": fixations, "original_size": original})["attention"].numpy()

    resampled = attention(1).reshape(1, 48, 2, 64, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(attention(2), resampled, atol=0.01)
    wider = GazeToAttentionMap(sigma_px=12.0)(fixations, (48, 64)).numpy()
    assert np.abs(wider - resampled).max() > 0.1


def test_an_item_without_its_original_size_is_said_once(caplog):
    item = sample()
    transform = GazeToAttentionMapd(sigma_px=7.0, reference_size_key="original_size")
    transform(item)
    out = transform(item)
    torch.testing.assert_close(out["attention"].as_tensor(), GazeToAttentionMap(sigma_px=7.0)(item["fixations"], SIZE))
    assert len(caplog.messages) == 1
    assert "no original_size in the datalist: fixations are 7 px wide in pixels of this file" in caplog.text


def test_two_recordings_make_two_maps():
    item = sample() | {"webcam": [[at_pixel(1, 1)]]}
    out = GazeToAttentionMapd(["fixations", "webcam"], attention_key=["expert_map", "webcam_map"], sigma_px=4.0)(item)
    assert peak(out["webcam_map"]) == (1, 1)
    assert peak(out["expert_map"]) == (8, 50)
    with pytest.raises(ValueError, match="place of its own"):
        GazeToAttentionMapd(["fixations", "webcam"])


@pytest.mark.parametrize("without", [{}, {"fixations": None}], ids=["missing", "None"])
def test_items_without_gaze_pass_only_where_that_is_allowed(without):
    item = {"image": torch.zeros(3, *SIZE), **without}
    assert "attention" not in GazeToAttentionMapd(allow_missing_keys=True)(item)
    with pytest.raises((KeyError, ValueError), match="fixations"):
        GazeToAttentionMapd()(item)


def test_an_image_that_is_missing_or_not_channel_first_is_named():
    with pytest.raises(KeyError, match="image"):
        GazeToAttentionMapd()({"fixations": [[at_pixel(1, 1)]]})
    with pytest.raises(ValueError, match=r"'image' must be .* \(48, 64\)"):
        GazeToAttentionMapd()({"image": torch.zeros(SIZE), "fixations": [[at_pixel(1, 1)]]})
    with pytest.raises(ValueError, match="not str"):
        GazeToAttentionMapd()({"image": "polyp.png", "fixations": [[at_pixel(1, 1)]]})


def test_a_training_on_gaze_is_refused_before_it_begins_where_the_datalist_has_none(tmp_path):
    plain, seen = {"image": "a.png"}, {"image": "b.png", "fixations": []}
    for items, how_many in (([plain, plain], ""), ([plain, seen, seen], " on 1 of 3 images")):
        path = tmp_path / "list.json"
        path.write_text(json.dumps({"training": items}))
        for arm in ("positive", "reverse"):
            with pytest.raises(ValueError, match=f"^the datalist has no gaze{how_many}: add --arm original to train"):
                check_gaze(path, "training", arm=arm)
        check_gaze(path, "training", arm="original")
        check_gaze(path, "training", arm="positive", allow_missing_gaze=True)
    path.write_text(json.dumps({"training": [seen]}))
    check_gaze(path, "training", arm="positive")
    check_gaze([plain], "training", arm="positive")
