import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clinbundles.scripts.prepare.datalist import (
    NEAR_DUPLICATE_BITS,
    SPLITS,
    datalist_as_json,
    difference_hash,
    join_groups,
    near_duplicates,
    read_official_split,
    split_groups,
)

GROUP_SIZES = st.lists(st.integers(1, 12), min_size=3, max_size=60)
RATIOS = st.tuples(*[st.floats(0.05, 10)] * 3)
SEEDS = st.integers(0, 2**32 - 1)


def named(sizes):
    return {f"g{k}": size for k, size in enumerate(sizes)}


def split_sizes(sizes, splits):
    return {name: sum(sizes[g] for g, where in splits.items() if where == name) for name in SPLITS}


@settings(deadline=None)
@given(GROUP_SIZES, RATIOS, SEEDS)
def test_every_group_lands_in_one_split_and_every_split_gets_one(sizes, ratios, seed):
    sizes = named(sizes)
    splits = split_groups(sizes, ratios=ratios, seed=seed)
    assert splits.keys() == sizes.keys()
    assert set(splits.values()) == set(SPLITS)


@settings(deadline=None)
@given(GROUP_SIZES, RATIOS, SEEDS)
def test_no_split_is_over_its_share_by_more_than_one_group(sizes, ratios, seed):
    sizes = named(sizes)
    found = split_sizes(sizes, split_groups(sizes, ratios=ratios, seed=seed))
    for name, ratio in zip(SPLITS, ratios, strict=True):
        assert found[name] < sum(sizes.values()) * ratio / sum(ratios) + max(sizes.values()) + 1


@settings(deadline=None)
@given(GROUP_SIZES, RATIOS, SEEDS, st.randoms(use_true_random=False))
def test_the_order_of_the_groups_does_not_matter_and_the_seed_decides(sizes, ratios, seed, random):
    sizes = named(sizes)
    shuffled = list(sizes.items())
    random.shuffle(shuffled)
    assert split_groups(dict(shuffled), ratios=ratios, seed=seed) == split_groups(sizes, ratios=ratios, seed=seed)


@settings(deadline=None)
@given(st.integers(5, 300), SEEDS)
def test_single_images_split_to_the_image(count, seed):
    sizes = {f"image{k}": 1 for k in range(5 * count)}
    found = split_sizes(sizes, split_groups(sizes, ratios=(0.6, 0.2, 0.2), seed=seed))
    assert found == {"training": 3 * count, "validation": count, "test": count}


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=60), SEEDS)
def test_a_share_of_nothing_gets_no_group_and_the_others_do_not_notice(sizes, seed):
    splits = split_groups(named(sizes), ratios=(70, 0, 30), seed=seed)
    assert set(splits.values()) == {"training", "test"}
    found = split_sizes(named(sizes), splits)
    assert abs(found["test"] - 0.3 * sum(sizes)) < max(sizes) + 1


def test_pairs_among_single_images_do_not_disturb_the_published_sizes():
    sizes = {f"image{k}": 1 for k in range(992)} | {f"pair{k}": 2 for k in range(4)}
    found = split_sizes(sizes, split_groups(sizes, ratios=(6, 2, 2), seed=0))
    assert list(found.values()) == [600, 200, 200]


def test_another_seed_gives_another_split():
    sizes = {f"image{k}": 1 for k in range(50)}
    assert split_groups(sizes, ratios=(6, 2, 2), seed=0) != split_groups(sizes, ratios=(6, 2, 2), seed=1)


def test_each_image_has_its_share_of_chances_to_be_tested():
    sizes = {f"image{k}": 1 for k in range(20)}
    tested = Counter(
        group
        for seed in range(400)
        for group, where in split_groups(sizes, ratios=(6, 2, 2), seed=seed).items()
        if where == "test"
    )
    assert len(tested) == 20
    assert all(50 <= count <= 115 for count in tested.values())  # 80 expected, standard deviation 8


def test_the_split_that_a_seed_draws_never_changes():
    splits = split_groups({f"g{k}": 1 + k % 3 for k in range(30)}, ratios=(6, 2, 2), seed=5)
    names = {split: [group for group in sorted(splits) if splits[group] == split] for split in SPLITS}
    assert names["validation"] == ["g11", "g12", "g18", "g22", "g24", "g28", "g7"]
    assert names["test"] == ["g13", "g19", "g21", "g25", "g27", "g4", "g6", "g9"]


def test_one_group_is_enough_where_all_goes_to_the_test():
    assert split_groups({"a": 4}, ratios=(0, 0, 1), seed=0) == {"a": "test"}


def test_two_groups_are_too_few():
    with pytest.raises(ValueError, match="9 images in 2 groups are too few"):
        split_groups({"a": 4, "b": 5}, ratios=(6, 2, 2), seed=0)


def test_a_compressed_smaller_copy_is_a_near_duplicate_and_another_picture_is_not(tmp_path, picture):
    Image.fromarray(picture(0, (128, 96))).save(tmp_path / "copy.jpg", quality=40)
    copy = np.asarray(Image.open(tmp_path / "copy.jpg").resize((100, 75)))
    hashes = [difference_hash(image) for image in (picture(0), copy, picture(1), picture(2))]
    assert near_duplicates(hashes, bits=NEAR_DUPLICATE_BITS) == [(0, 1)]


def test_near_duplicates_are_counted_in_bits():
    base = np.zeros(256, dtype=bool)
    close, far = base.copy(), base.copy()
    close[:NEAR_DUPLICATE_BITS] = True
    far[: NEAR_DUPLICATE_BITS + 1] = True
    assert near_duplicates([base, close], bits=NEAR_DUPLICATE_BITS) == [(0, 1)]
    assert near_duplicates([base, far], bits=NEAR_DUPLICATE_BITS) == []
    assert near_duplicates([base], bits=0) == near_duplicates([], bits=0) == []
    assert near_duplicates([base, far], bits=NEAR_DUPLICATE_BITS + 1) == [(0, 1)]
    assert near_duplicates([base, close], bits=NEAR_DUPLICATE_BITS - 1) == []
    assert near_duplicates([base, base, close], bits=0) == [(0, 1)]


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=20), st.data())
def test_joined_items_share_a_group_and_what_shared_one_still_does(groups, data):
    indices = st.integers(0, len(groups) - 1)
    pairs = data.draw(st.lists(st.tuples(indices, indices), max_size=10))
    joined = join_groups(groups, pairs)
    assert all(joined[first] == joined[second] for first, second in pairs)
    for first, second in itertools.combinations(range(len(groups)), 2):
        assert groups[first] != groups[second] or joined[first] == joined[second]
    if not pairs:
        assert joined == groups


def write_lists(folder, **names):
    for name, lines in names.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def test_official_lists_may_begin_with_a_mark_and_names_may_have_blanks(tmp_path):
    (tmp_path / "train.txt").write_bytes("\ufeffa 1\r\na 2.jpg\r\n\r\n".encode())
    (tmp_path / "val.txt").write_text("b")
    assert read_official_split(tmp_path, ["a 1", "a 2", "b"]) == {
        "a 1": "training",
        "a 2": "training",
        "b": "validation",
    }


def test_official_lists_name_images_with_or_without_suffix(tmp_path):
    write_lists(tmp_path, train=["a", "b.jpg"], val=["c"])
    assert read_official_split(tmp_path, ["c", "a", "b"]) == {"a": "training", "b": "training", "c": "validation"}


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": ["a", "b"]}, "no official split here"),
        ({"train": ["a", "b"], "val": ["a"]}, r"val\.txt: a is listed twice, here and in train\.txt"),
        ({"train": ["a"], "val": []}, "1 images are in no list, the first is b"),
        ({"train": ["a", "b"], "val": ["x", "y"]}, "2 listed images are not there, the first is x"),
    ],
)
def test_official_lists_that_do_not_fit_the_images_are_refused(tmp_path, lists, message):
    write_lists(tmp_path, **lists)
    with pytest.raises(ValueError, match=message):
        read_official_split(tmp_path, ["a", "b"])


def test_a_datalist_has_one_item_a_line_whatever_its_splits_are_called():
    items = [{"image": "a.png", "label": 0}, {"image": "b.png", "label": 1}]
    content = {"name": "x", "labels": {"0": "no"}, "copies": [["a.png", "b.png"]], "training": items}
    content |= {"pretraining": items[:1], "skipped": [{"file": "c.png", "reason": "no"}], "test": []}
    text = datalist_as_json(content)
    assert json.loads(text) == content
    assert len(text.splitlines()) == 2 + 3 + (2 + 2) + (2 + 1) + (2 + 1) + 1
    assert text.count('\n    {"image": ') == 3
