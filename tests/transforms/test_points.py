"""Instances by mask, points and box, and how they follow the image."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import (
    BorderPadd,
    Compose,
    Flipd,
    RandFlipd,
    RandRotate90d,
    RandSpatialCropd,
    RandZoomd,
    Resized,
    Rotate90d,
    SpatialCropd,
    SpatialPadd,
    Zoomd,
)

from clinbundles.transforms.points import (
    InstancesFollowd,
    LoadInstancesd,
    draw_layers,
    move_boxes,
    move_points,
    pixel_matrix,
    sample_points,
)
from clinbundles.transforms.readers.coco import encode_mask

BOTH = ("image", "masks")
HEIGHT, WIDTH = 24, 40


def rectangle(x: int, y: int, width: int, height: int) -> np.ndarray:
    """Mask (HEIGHT, WIDTH) of a box."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y : y + height, x : x + width] = True
    return mask


def annotation(number: int, box: tuple[int, int, int, int], n: int = 10, **entries: object) -> dict[str, object]:
    """Instance that fills its box, with n points all over it."""
    points, labels = sample_points(rectangle(*box), box, n=n, seed=(0, number))
    return {
        "id": number,
        "image_id": 3,
        "bbox": list(box),
        "segmentation": encode_mask(rectangle(*box)),
        "point_coords": points.tolist(),
        "point_labels": labels.tolist(),
        **entries,
    }


# The second and the third overlap.
BOXES = [(2, 3, 7, 5), (20, 4, 10, 12), (26, 10, 9, 8), (0, 20, 4, 4)]


@pytest.fixture
def write(tmp_path):
    """Write a list of one image with some annotations; return the item of its datalist, the image loaded."""

    def write(*annotations, image=None):
        entry = {"id": 3, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}
        path = tmp_path / "list.json"
        path.write_text(json.dumps({"images": [entry], "annotations": annotations}))
        pixels = torch.arange(float(HEIGHT * WIDTH)).view(1, HEIGHT, WIDTH) if image is None else image
        return {"image": MetaTensor(pixels, affine=torch.eye(4)), "label": str(path), "image_id": 3}

    return write


@pytest.fixture
def item(write):
    return write(*(annotation(k + 1, box) for k, box in enumerate(BOXES)))


@given(
    st.integers(0, 30),
    st.integers(0, 18),
    st.integers(1, 10),
    st.integers(1, 6),
    st.integers(0, 12),
    st.integers(0, 99),
)
def test_points_lie_in_the_box_are_labelled_by_the_mask_and_the_first_ones_stay(x, y, width, height, n, seed):
    mask = np.random.RandomState(seed).rand(HEIGHT, WIDTH) < 0.5
    box = (x + 0.4, y + 0.3, width - 0.5, height - 0.7)
    points, labels = sample_points(mask, box, n=n, seed=(seed, 5))
    assert points.shape == (n, 2)
    assert ((points >= [x, y]) & (points < [x + width, y + height])).all()
    np.testing.assert_array_equal(labels, mask[points[:, 1], points[:, 0]])
    for m in range(n):
        np.testing.assert_array_equal(sample_points(mask, box, n=m, seed=(seed, 5))[0], points[:m])


def test_points_are_uniform_in_the_box_and_differ_between_instances():
    points, labels = sample_points(rectangle(10, 5, 10, 10), (10, 5, 20, 10), n=20_000, seed=(0, 1))
    assert points[:, 0].mean() == pytest.approx(19.5, abs=0.2)  # the middle of the columns 10 to 29
    assert points[:, 1].mean() == pytest.approx(9.5, abs=0.1)
    assert labels.mean() == pytest.approx(0.5, abs=0.02)
    assert len(np.unique(points, axis=0)) == 200
    other, _ = sample_points(rectangle(10, 5, 10, 10), (10, 5, 20, 10), n=10, seed=(0, 2))
    assert (other != points[:10]).any()


@pytest.mark.parametrize("box", [(0, 0, 0, 3), (0, 0, 3, -1), (38, 0, 3, 3), (-1, 0, 3, 3), (0, 0, float("nan"), 3)])
def test_points_in_no_box_are_refused(box):
    with pytest.raises(ValueError, match="has no area, or leaves the image of 40x24 px"):
        sample_points(rectangle(0, 0, 3, 3), box, n=1, seed=0)


def test_instances_are_loaded_with_corners_and_pixel_middles(item):
    sample = LoadInstancesd(supervise_by="points", n_points=4)(item)
    assert {name: sample[name].dtype for name in ("boxes", "points", "point_labels", "supervision", "masks")} == {
        "boxes": torch.float32,
        "points": torch.float32,
        "point_labels": torch.int64,
        "supervision": torch.int64,
        "masks": torch.int32,
    }
    assert sample["boxes"][0].tolist() == [2, 3, 9, 8]
    stored = np.stack([sample_points(rectangle(*box), box, n=4, seed=(0, k + 1))[0] for k, box in enumerate(BOXES)])
    np.testing.assert_array_equal(sample["points"], stored + 0.5)
    assert (sample["point_labels"] == 1).all()
    assert sample["supervision"].tolist() == [1] * 4
    assert sample["masks"].shape == (1, HEIGHT, WIDTH)
    assert not sample["masks"].any()  # nothing of a mask reaches a training by points
    assert "boxes" not in item


def test_each_instance_is_supervised_by_what_it_has_or_by_what_is_asked_for(write):
    item = write(
        annotation(1, BOXES[0]),
        annotation(2, BOXES[1], segmentation=None),
        annotation(3, BOXES[2], segmentation=None, point_coords=[[27, 11], [27, 12]], point_labels=[1, 0]),
        annotation(4, BOXES[3], segmentation=[], point_coords=[]),
    )
    sample = LoadInstancesd(n_points=3)(item)
    assert sample["supervision"].tolist() == [2, 1, 1, 0]
    assert sample["point_labels"].tolist() == [[-1] * 3, [1] * 3, [1, 0, -1], [-1] * 3]
    assert sample["masks"].unique().tolist() == [0, 1]
    assert LoadInstancesd(n_points=0)(item)["supervision"].tolist() == [2, 0, 0, 0]
    assert LoadInstancesd(n_points=0)(item)["points"].shape == (4, 0, 2)
    assert LoadInstancesd(supervise_by="box")(item)["supervision"].tolist() == [0] * 4
    with pytest.raises(ValueError, match=r"list\.json: annotation 2: it has no mask; supervise_by=\"as given\""):
        LoadInstancesd(supervise_by="mask")(item)
    with pytest.raises(ValueError, match=r"list\.json: annotation 4: it has no points"):
        LoadInstancesd(supervise_by="points")(item)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"bbox": [38, 0, 3, 3]},
            r"annotation 1: box \[38, 0, 3, 3\] has no area, or leaves the image of 40x24 px\. cl",
        ),
        ({"segmentation": {"size": [40, 24], "counts": "0"}}, r"annotation 1: its run lengths have size \[40, 24\]"),
    ],
)
def test_a_bad_instance_is_named(write, changes, message):
    with pytest.raises(ValueError, match=message):
        LoadInstancesd()(write(annotation(1, BOXES[0], **changes)))


def test_wrong_options_and_an_image_of_another_size_are_refused(write, item):
    with pytest.raises(ValueError, match="supervise_by is 'pionts', expected one of as given, mask"):
        LoadInstancesd(supervise_by="pionts")
    with pytest.raises(ValueError, match=r"n_points is -1, expected"):
        LoadInstancesd(n_points=-1)
    with pytest.raises(ValueError, match=r"min_size is -2"):
        InstancesFollowd(min_size=-2)
    with pytest.raises(ValueError, match=r"list\.json: n_points is 11, an instance has 10 at most"):
        LoadInstancesd(n_points=11)(item)
    with pytest.raises(ValueError, match=r"list\.json: image 3 has 40x24 px there, and 24x40 as loaded"):
        LoadInstancesd()(write(image=torch.zeros(1, 40, 24)))
    with pytest.raises(ValueError, match="expected a MetaTensor"):
        InstancesFollowd()({**LoadInstancesd()(item), "image": torch.zeros(1, HEIGHT, WIDTH)})


def test_only_instances_that_overlap_need_another_layer():
    apart = [np.nonzero(rectangle(x, y, 1, 1)) for x in range(WIDTH) for y in range(HEIGHT)]
    layers = draw_layers(apart, height=HEIGHT, width=WIDTH)
    assert layers.shape == (1, HEIGHT, WIDTH)
    assert len(np.unique(layers)) == HEIGHT * WIDTH
    over = [np.nonzero(rectangle(x, 0, 3, 3)) for x in (0, 2, 4)]
    layers = draw_layers([over[0], None, *over[1:]], height=HEIGHT, width=WIDTH)
    assert [np.unique(layer).tolist() for layer in layers] == [[0, 1, 4], [0, 3]]
    assert (layers == 3).sum() == 9
    assert draw_layers([], height=2, width=3).shape == (1, 2, 3)


EXACT = {
    "flip rows": Flipd(BOTH, 0),
    "flip columns": Flipd(BOTH, 1),
    "rotate": Rotate90d(BOTH, 1),
    "rotate thrice": Rotate90d(BOTH, 3),
    "resize": Resized(BOTH, (2 * HEIGHT, 3 * WIDTH), mode="nearest-exact"),
    "zoom": Zoomd(BOTH, 2.0, mode="nearest-exact", padding_mode="constant"),
    "zoom and grow": Zoomd(BOTH, 2.0, mode="nearest-exact", padding_mode="constant", keep_size=False),
    "crop": SpatialCropd(BOTH, roi_start=(5, 3), roi_end=(20, 31)),
    "pad": SpatialPadd(BOTH, (31, 50)),
    "border": BorderPadd(BOTH, (1, 2, 3, 4)),
}
RANDOM = {
    "flip": RandFlipd(BOTH, 1.0, 1),
    "rotate": RandRotate90d(BOTH, 1.0),
    "crop": RandSpatialCropd(BOTH, (16, 16), random_size=False),
    "zoom": RandZoomd(BOTH, 1.0, 0.7, 1.4, mode="nearest-exact", padding_mode="constant"),
}


def moved(item, *transforms, supervise_by="mask", **options):
    """Samples before and after transforms."""
    before = LoadInstancesd(supervise_by=supervise_by)(item)
    return before, Compose([*transforms, InstancesFollowd(**options)])(before)


def content(image: torch.Tensor, points: torch.Tensor) -> np.ndarray:
    """Values of the pixels (H, W) that points (N, 2) lie in."""
    columns, rows = points.numpy().T.astype(int)
    return np.asarray(image)[rows, columns]


def check_that_points_stay_on_their_pixels(before, after):
    """Each point that is left sees the value it saw, and all within the image are left."""
    values = before["image"].as_tensor()[0]
    reached = after["point_labels"] != -1
    assert (after["points"][reached] >= 0).all()
    assert (after["points"][reached] < torch.tensor(after["image"].shape[:0:-1])).all()
    matrix = pixel_matrix(after["image"])
    for points, labels in zip(after["points"], after["point_labels"], strict=True):
        back = move_points(points, torch.linalg.inv(matrix))
        shown = labels != -1
        np.testing.assert_array_equal(
            content(after["image"].as_tensor()[0], points[shown]), content(values, back[shown])
        )
        np.testing.assert_allclose(back % 1, 0.5, atol=1e-4)  # the middle of the pixel that it was drawn in
    assert reached.any()


@pytest.mark.parametrize("name", EXACT)
def test_points_stay_on_the_pixels_they_were_drawn_in(item, name):
    check_that_points_stay_on_their_pixels(*moved(item, EXACT[name], supervise_by="points"))


@pytest.mark.parametrize("name", EXACT)
def test_boxes_that_fit_their_masks_still_do(item, name):
    _, after = moved(item, EXACT[name])
    assert len(after["boxes"]) == len(after["masks"]) >= 2
    assert after["masks"].dtype == torch.uint8
    for box, mask in zip(after["boxes"], after["masks"], strict=True):
        rows, columns = np.nonzero(mask.numpy())
        np.testing.assert_allclose(box, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], atol=1e-4)
        assert mask.sum() == (columns.max() + 1 - columns.min()) * (rows.max() + 1 - rows.min())


@pytest.mark.parametrize("name", {**EXACT, **RANDOM})
def test_boxes_and_points_come_back_by_the_inverse(item, name):
    before, after = moved(item, {**EXACT, **RANDOM}[name], supervise_by="points", min_size=0)
    matrix = pixel_matrix(after["image"])
    np.testing.assert_allclose(torch.linalg.inv(matrix) @ matrix, torch.eye(3), atol=1e-9)
    boxes = move_boxes(move_boxes(before["boxes"], matrix), torch.linalg.inv(matrix))
    np.testing.assert_allclose(boxes, before["boxes"], atol=1e-5)
    points = move_points(move_points(before["points"], matrix), torch.linalg.inv(matrix))
    np.testing.assert_allclose(points, before["points"], atol=1e-5)


@pytest.mark.parametrize("factor", [0.55, 0.83, 1.0, 1.17, 1.9])
@pytest.mark.parametrize("way", ["resize", "zoom", "zoom and cut or pad"])
def test_at_any_scale_a_point_sees_where_it_was(write, factor, way):
    # Channels that hold x and y: interpolation keeps them exact inside the image.
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    item = write(*(annotation(k + 1, box) for k, box in enumerate(BOXES[:3])), image=torch.stack([x, y]))
    modes = ("bilinear", "nearest-exact")
    if way == "resize":
        scale = Resized(BOTH, (round(HEIGHT * factor), round(WIDTH * factor)), mode=modes)
    else:
        scale = Zoomd(BOTH, factor, mode=modes, padding_mode="constant", keep_size=way != "zoom")
    before, after = moved(item, scale, supervise_by="points", min_size=0)
    shown = after["point_labels"] != -1
    assert shown.any()
    height, width = after["image"].shape[1:]
    grid = after["points"] / torch.tensor([width, height]) * 2 - 1
    seen = torch.nn.functional.grid_sample(after["image"].as_tensor()[None], grid[None], align_corners=False)[0]
    # Within half a pixel of the edge there is nothing to interpolate with.
    inside = shown & ((grid.abs() < 1 - 1 / torch.tensor([width, height])).all(dim=-1))
    back = move_points(after["points"], torch.linalg.inv(pixel_matrix(after["image"])))
    np.testing.assert_allclose(seen.permute(1, 2, 0)[inside], back[inside], atol=1e-3)
    assert (torch.isin(back[shown].float().round(decimals=3), before["points"])).all()
    if way != "zoom and cut or pad":
        sides = after["boxes"][:, 2:] - after["boxes"][:, :2]
        expected = (before["boxes"][:, 2:] - before["boxes"][:, :2]) * torch.tensor([width / WIDTH, height / HEIGHT])
        np.testing.assert_allclose(sides, expected, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(list(EXACT)), min_size=1, max_size=5), st.sampled_from(["points", "mask"]))
def test_any_chain_of_transforms_is_followed(tmp_path_factory, names, supervise_by):
    path = tmp_path_factory.mktemp("chain") / "list.json"
    entry = {"id": 3, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}
    annotations = [annotation(k + 1, (x, y, 4, 4)) for k, (x, y) in enumerate([(8, 6), (14, 8), (18, 12), (20, 9)])]
    path.write_text(json.dumps({"images": [entry], "annotations": annotations}))
    image = MetaTensor(torch.arange(float(HEIGHT * WIDTH)).view(1, HEIGHT, WIDTH), affine=torch.eye(4))
    item = {"image": image, "label": str(path), "image_id": 3}
    before = LoadInstancesd(supervise_by=supervise_by)(item)
    carried = before
    for name in sorted(names, key=lambda name: name not in ("pad", "border")):  # what is cut off stays off
        if min(carried["image"].shape[1:]) > 300:  # grown by several zooms
            continue
        if name == "crop" and min(carried["image"].shape[1:]) < 22:
            continue
        carried = EXACT[name](carried)
    after = InstancesFollowd()(carried)
    pixels = after["image"].as_tensor()[0]
    for points, labels in zip(after["points"], after["point_labels"], strict=True):
        shown = points[labels != -1]
        back = move_points(shown, torch.linalg.inv(pixel_matrix(after["image"])))
        np.testing.assert_array_equal(content(pixels, shown), content(before["image"].as_tensor()[0], back))
    to_file = torch.linalg.inv(pixel_matrix(after["image"]))
    for box, mask in zip(after["boxes"], after["masks"], strict=True):
        rows, columns = np.nonzero(mask.numpy())
        if supervise_by == "mask" and len(rows):
            seen = torch.tensor([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]])
            # The nearest pixel is off by half a pixel at most, at each scaling by less than a whole number.
            np.testing.assert_allclose(move_boxes(seen, to_file), move_boxes(box[None], to_file), atol=1)


def test_a_crop_cuts_the_given_box_in_every_arm_and_never_fits_it_to_the_mask(write):
    wide = annotation(1, BOXES[1], bbox=[16, 2, 20, 18])
    boxes = {}
    for arm in ("mask", "points", "box"):
        _, after = moved(write(wide), SpatialCropd(BOTH, roi_start=(0, 0), roi_end=(12, 25)), supervise_by=arm)
        boxes[arm] = after["boxes"].tolist()
    assert boxes == {arm: [[16, 2, 25, 12]] for arm in boxes}


def test_what_the_crop_leaves_out_is_ignored_or_dropped(item):
    _, after = moved(item, SpatialCropd(BOTH, roi_start=(0, 0), roi_end=(24, 21)), supervise_by="points")
    # One column is left of the second box, and nothing of the third.
    assert after["boxes"].tolist() == [[2, 3, 9, 8], [20, 4, 21, 16], [0, 20, 4, 24]]
    assert [len(after[name]) for name in ("points", "point_labels", "supervision", "masks")] == [3] * 4
    outside = after["points"][1, :, 0] >= 21
    assert outside.any()
    np.testing.assert_array_equal(after["point_labels"][1] == -1, outside)
    _, after = moved(item, SpatialCropd(BOTH, roi_start=(0, 0), roi_end=(24, 21)), min_size=2)
    assert len(after["boxes"]) == 2
    _, after = moved(item, SpatialCropd(BOTH, roi_start=(18, 30), roi_end=(24, 40)))
    assert after["boxes"].shape == (0, 4)
    assert after["masks"].shape == (0, 6, 10)
    assert all(type(after[name]) is torch.Tensor for name in ("boxes", "points", "point_labels", "masks"))


def test_masks_of_overlapping_instances_stay_whole(item):
    _, after = moved(item)
    assert after["masks"].sum(dim=(1, 2)).tolist() == [width * height for _, _, width, height in BOXES]
    assert after["masks"][1:3].all(dim=0).any()


def test_an_image_without_instances_goes_through(write):
    _, after = moved(write(), Flipd(BOTH, 0), supervise_by="as given")
    assert (after["boxes"].shape, after["points"].shape, after["masks"].shape) == ((0, 4), (0, 0, 2), (0, 24, 40))


def test_an_affine_of_the_file_is_none_of_the_transforms(item):
    scanner = torch.diag(torch.tensor([0.5, 2.0, 1.0, 1.0], dtype=torch.float64))
    item["image"] = MetaTensor(item["image"].as_tensor(), affine=scanner, meta={"original_affine": scanner})
    _, after = moved(item, Flipd(BOTH, 1))
    assert after["boxes"][0].tolist() == [WIDTH - 9, 3, WIDTH - 2, 8]


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (Flipd("image", 0), "the masks are not where the image is"),
        (SpatialCropd("image", roi_start=(0, 0), roi_end=(10, 10)), "the masks are not where the image is"),
        (Resized(BOTH, (30, 50), mode="bilinear"), "the masks were interpolated"),
    ],
)
def test_masks_that_went_another_way_or_were_blended_are_refused(item, transform, message):
    with pytest.raises(ValueError, match=message):
        InstancesFollowd()(transform(LoadInstancesd()(item)))


def test_thousands_of_instances_take_less_than_a_few_seconds(write):
    boxes = [(x, y, 1, 1) for x in range(WIDTH) for y in range(HEIGHT)] * 3
    annotations = [annotation(k + 1, box, n=1) for k, box in enumerate(boxes)]
    before, after = moved(write(*annotations), Flipd(BOTH, 0))
    assert before["masks"].shape == (3, HEIGHT, WIDTH)
    assert after["masks"].sum() == len(boxes) == len(after["boxes"])
