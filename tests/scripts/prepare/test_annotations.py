from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinbundles.scripts.prepare.annotations import (
    AnnotatedImage,
    Annotation,
    Omissions,
    Tally,
    annotation_of,
    label_map_annotations,
    usable_instances,
    with_points,
)
from clinbundles.transforms.readers.coco import decode_mask, encode_mask

MASK = np.zeros((5, 6), bool)
MASK[1:3, 1:4] = True
RUNS = encode_mask(MASK)


def usable(*annotations):
    """Instances of an image of 6 x 5 px that are of use, and the tally."""
    tally = Tally()
    image = AnnotatedImage(Path("a.png"), "a", lambda: annotations)
    return usable_instances(image, height=5, width=6, tally=tally), tally


def test_an_instance_keeps_its_given_box_and_takes_that_of_its_mask_without_one():
    given_box, from_mask, box_alone = usable(
        Annotation("a", box=[0.5, 0, 5, 4], segmentation=RUNS),
        Annotation("b", segmentation=RUNS),
        Annotation("c", box=[0, 0, 2, 1.5]),
    )[0]
    assert given_box.box == (0.5, 0, 5, 4)
    assert from_mask.box == (1, 1, 3, 2)
    assert (given_box.area, from_mask.area, box_alone.area) == (6, 6, 3)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"box": [0, 0, 2, 2], "crowd": True}, "that mark a crowd"),
        ({}, "without mask and box"),
        ({"segmentation": encode_mask(~MASK & MASK)}, "whose mask is empty"),
        ({"segmentation": encode_mask(MASK.T)}, "whose mask cannot be read or is of another size"),
        ({"segmentation": [[1, 2]]}, "whose mask cannot be read or is of another size"),
        ({"box": [1, 1, 0, 2]}, "whose box has no area"),
        ({"box": [1, 1, 2, -2]}, "whose box has no area"),
        ({"box": [6, 1, 2, 2]}, "whose box is outside the image"),
        ({"box": [1, 1, 2]}, "whose box is not four numbers"),
        ({"box": [1, 1, 2, float("nan")]}, "whose box is not four numbers"),
        ({"box": "1234"}, "whose box is not four numbers"),
    ],
)
def test_what_is_of_no_use_is_left_out_and_counted(annotation, reason):
    instances, tally = usable(Annotation("cell 1", **annotation), Annotation("cell 2", **annotation))
    assert instances == []
    assert (tally.annotations, tally.omitted.counts) == (2, {reason: 2})
    assert str(tally.omitted) == f"2 {reason}, first cell 1 of a.png"


def test_a_box_is_cut_at_the_edge_and_told_unless_it_was_only_rounded():
    instances, tally = usable(Annotation("a", box=[-0.3, 1, 6.6, 2]), Annotation("b", box=[2, 2, 9, 9]))
    np.testing.assert_allclose([i.box for i in instances], [[0, 1, 6, 2], [2, 2, 4, 3]])
    assert str(tally.cut) == "1 boxes are cut at the edge of their image, first b of a.png"


def test_points_are_rounded_down_and_those_outside_the_box_or_without_a_label_are_left_out():
    points = [[1.9, 1.2], [4, 1], [0.4, 1], [2, 2], [2, float("nan")], [1, 1]]
    ((instance,), tally) = usable(Annotation("a", box=[0.9, 1, 3, 2], points=points, point_labels=[1, 1, 0, 0, 1, 7]))
    assert instance.points == [(1, 1), (0, 1), (2, 2)]
    assert instance.point_labels == [1, 0, 0]
    assert tally.points.counts == {
        "points are outside their box": 1,
        "points are not x, y with a label of 0 or 1": 2,
    }
    ((instance,), tally) = usable(Annotation("a", box=[0, 0, 3, 2], points=[[1, 1]], point_labels=[]))
    assert instance.points == []
    assert list(tally.points.counts) == ["lists of points are not as long as those of their labels"]


def test_points_of_people_come_before_drawn_ones_and_without_a_mask_none_are_drawn():
    own, drawn, none = usable(
        Annotation("a", segmentation=RUNS, points=[[1, 1]], point_labels=[1]),
        Annotation("b", segmentation=RUNS),
        Annotation("c", box=[0, 0, 2, 2]),
    )[0]
    assert with_points(own, n=5, seed=(0, 1)) == ([[1, 1]], [1])
    points, labels = with_points(drawn, n=5, seed=(0, 1))
    assert labels == [1] * 5
    assert all(MASK[y, x] for x, y in points)
    assert with_points(drawn, n=2, seed=(0, 1))[0] == points[:2]
    assert with_points(none, n=5, seed=(0, 1)) == ([], [])


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.sampled_from([np.int64, np.uint16, np.uint32])
)
def test_each_number_of_a_label_map_is_an_instance_whatever_is_missing(seed, height, width, dtype):
    random = np.random.RandomState(seed)
    values = random.choice([0, 1, 5, 60000, 7], (height, width)).astype(dtype)
    annotations = list(label_map_annotations(values))
    numbers = [n for n in np.unique(values) if n]
    assert [a.name for a in annotations] == [f"label {n}" for n in numbers]
    for n, annotation in zip(numbers, annotations, strict=True):
        np.testing.assert_array_equal(decode_mask(annotation.segmentation), values == n)


def test_a_label_map_below_zero_is_refused():
    with pytest.raises(ValueError, match="numbers from 0 on, this one -1"):
        list(label_map_annotations(np.array([[-1, 2]])))


def test_an_entry_of_coco_becomes_an_annotation():
    entry = {"id": 4, "bbox": [0, 0, 1, 1], "iscrowd": 1, "point_coords": [[0, 0]], "point_labels": [1]}
    annotation = annotation_of(entry)
    assert (annotation.name, annotation.id, annotation.crowd) == ("annotation 4", 4, True)
    assert (annotation.points, annotation.segmentation) == ([[0, 0]], None)
    assert annotation_of({"id": "x"}).id is None


def test_omissions_of_images_add_up():
    first, second = Omissions(), Omissions()
    for name in ("a", "b"):
        first.add("without box", name)
    second.add("without box", "c")
    second.add("empty", "d")
    first.join(second)
    assert (first.total(), str(first)) == (4, "3 without box, first a; 1 empty, first d")
