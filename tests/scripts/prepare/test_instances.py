import json
from collections import Counter

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from monai.data import load_decathlon_datalist
from PIL import Image

from clinbundles.scripts.prepare.datalist import SPLITS, items_of
from clinbundles.scripts.prepare.instances import identical_pairs, look_of, number, pool_looks, split_strata
from clinbundles.transforms.points import LoadInstancesd
from clinbundles.transforms.readers.coco import instances_of


def write_bowl(root, count=12, *, size=(16, 12), start=0):
    """BOWL2018 of images with two nuclei each."""
    for k in range(start, start + count):
        case = root / "stage1_train" / f"case{k:02}"
        for name in ("images", "masks"):
            (case / name).mkdir(parents=True)
        pixels = np.random.RandomState(k).randint(0, 60, size[::-1], np.uint8)
        Image.fromarray(pixels).save(case / "images" / f"case{k:02}.png")
        for nucleus, columns in enumerate((slice(1, 5), slice(8, 12))):
            mask = np.zeros(size[::-1], np.uint8)
            mask[2:7, columns] = 255
            Image.fromarray(mask).save(case / "masks" / f"{nucleus}.png")
    return root


@pytest.fixture
def bowl(tmp_path):
    return write_bowl(tmp_path / "bowl")


def test_the_datalist_names_one_list_for_all_and_monai_loads_it(bowl, run, tmp_path):
    content = run(bowl, "bowl2018", targets="instances")
    assert [content[f"num{name.capitalize()}"] for name in SPLITS] == [7, 1, 4]
    assert {item["label"] for item in items_of(content)} == {"../datalist_coco.json"}
    assert (content["points"], content["seed"], content["skipped"]) == (10, 0, [])
    items = load_decathlon_datalist(str(tmp_path / "datalist.json"), True, "training", str(bowl))
    for item in items:
        sample = LoadInstancesd(supervise_by="points", n_points=10)(item)
        assert sample["boxes"].tolist() == [[1, 2, 5, 7], [8, 2, 12, 7]]
        assert (sample["point_labels"] == 1).all()
        assert instances_of(item).boxes.tolist() == sample["boxes"].tolist()


def test_the_hash_of_the_data_is_the_same_under_other_names(bowl, run):
    before = run(bowl, "bowl2018", targets="instances")
    for case in (bowl / "stage1_train").iterdir():
        for path in (case / "masks").iterdir():
            path.rename(path.with_name(f"z{9 - int(path.stem)}.png"))
        name = f"other{99 - int(case.name[4:]):02}"
        (case / "images" / f"{case.name}.png").rename(case / "images" / f"{name}.png")
        case.rename(case.with_name(name))
    after = run(bowl, "bowl2018", targets="instances")
    assert after["data_sha256"] == before["data_sha256"]
    (bowl / "stage1_train" / "other99" / "masks" / "z9.png").unlink()
    assert run(bowl, "bowl2018", targets="instances")["data_sha256"] != before["data_sha256"]


def test_fewer_points_are_the_first_of_more_and_another_seed_gives_others(bowl, run, tmp_path):
    def points(**flags):
        run(bowl, "bowl2018", targets="instances", **flags)
        annotations = json.loads((tmp_path / "datalist_coco.json").read_text())["annotations"]
        return np.array([annotation["point_coords"] for annotation in annotations])

    ten = points(points=10)
    assert ten.shape == (24, 10, 2)
    np.testing.assert_array_equal(points(points=4), ten[:, :4])
    np.testing.assert_array_equal(points(points=10), ten)
    assert (points(points=10, seed=1) != ten).any()
    assert len(np.unique(ten.reshape(24, -1) - [[1, 2] * 10, [8, 2] * 10] * 12, axis=0)) == 24
    assert points(points=0).shape == (24, 0)


def test_masks_stay_what_comes_unless_instances_are_asked_for(bowl, run):
    assert items_of(run(bowl, "bowl2018"))[0]["label"].endswith(".png")
    with pytest.raises(ValueError, match="--points are of instances: add --targets instances"):
        run(bowl, "bowl2018", points=4)


def test_looks_are_split_apart_and_rare_ones_pooled(bowl, run):
    write_bowl(bowl, 10, size=(20, 12), start=20)
    write_bowl(bowl, 2, size=(24, 12), start=40)
    content = run(bowl, "bowl2018", targets="instances")
    assert content["strata"] == {"16x12 grey dark": 14, "20x12 grey dark": 10}
    looks = {name: Counter(item["stratum"] for item in content[name]) for name in SPLITS}
    assert [looks[name]["20x12 grey dark"] for name in SPLITS] == [6, 1, 3]
    assert sum(counts["24x12 grey dark"] for counts in looks.values()) == 2


def test_identical_images_are_in_one_split_and_named(bowl, run):
    path = bowl / "stage1_train" / "case05" / "images" / "case05.png"
    Image.open(bowl / "stage1_train" / "case01" / "images" / "case01.png").save(path, compress_level=0)
    for seed in range(5):
        content = run(bowl, "bowl2018", targets="instances", seed=seed)
        names = [f"stage1_train/case0{k}/images/case0{k}.png" for k in (1, 5)]
        assert content["duplicates"] == [names]
        splits = [name for name in SPLITS for item in content[name] if item["image"] in names]
        assert len(set(splits)) == 1


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=80))
def test_pooled_looks_are_many_or_all(looks):
    pooled = Counter(pool_looks(looks))
    assert sum(pooled.values()) == len(looks)
    assert len(pooled) == 1 or min(pooled.values()) >= 10


def test_a_group_of_two_strata_stays_together():
    groups = [f"g{k}" for k in range(20)] + ["g0", "g1"]
    split_of = split_strata(groups, ["a"] * 20 + ["b"] * 2, ratios=(6, 2, 2), seed=0)
    assert split_of.keys() == set(groups)


def test_looks_tell_size_colour_and_ground():
    grey = np.full((4, 6, 3), 200, np.uint8)
    assert look_of(grey) == "6x4 grey bright"
    assert look_of(grey // 2) == "6x4 grey dark"
    grey[0, 0, 0] = 0
    assert look_of(grey) == "6x4 colour bright"


def test_ids_are_kept_where_they_tell_all_apart():
    assert number([7, 3]) == [7, 3]
    for ids in ([7, 7], [7, None], [0, 4]):
        assert number(ids) == [1, 2]
    assert identical_pairs(["a", "b", "a", "a"]) == [(0, 2), (0, 3)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"points": -1}, "--points is -1: expected a whole number from 0 on"),
        ({"ratios": (6, 2, 3)}, "--ratios .* sum to 11"),
        ({"split": "official"}, "--split official: BOWL2018 tells no split of .*case00"),
        ({"split": "official", "ratios": (6, 2, 2)}, "--ratios are of a random split"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_flags_that_cannot_be_are_refused_and_nothing_written(bowl, run, tmp_path, flags, message):
    with pytest.raises(ValueError, match=message):
        run(bowl, "bowl2018", targets="instances", **flags)
    assert not list(tmp_path.glob("*.json"))


def test_bad_images_are_named_and_left_out_if_asked(bowl, run, capsys):
    case = bowl / "stage1_train"
    (case / "case00" / "images" / "case00.png").write_bytes(b"no image")
    deep = np.full((12, 16), 40_000, np.uint16)
    Image.fromarray(deep).save(case / "case01" / "images" / "case01.png")
    with pytest.raises(ValueError, match=r"case00\.png: not a readable image file .*--skip_bad leaves such files out"):
        run(bowl, "bowl2018", targets="instances")
    content = run(bowl, "bowl2018", targets="instances", skip_bad=True)
    assert len(items_of(content)) == 10
    assert "deeper than 8 bits" in content["skipped"][1]["reason"]
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .startswith(
            "12 images came in, 10 are used (0 of them without an instance), 2 are left out (2 that are bad, first "
        )
    )
    content = run(bowl, "bowl2018", targets="instances", skip_bad=True, intensity_range=(0, 65535))
    assert len(items_of(content)) == 11


def test_a_nucleus_of_another_size_is_left_out_and_an_empty_one_too(bowl, run, capsys):
    masks = bowl / "stage1_train" / "case00" / "masks"
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(masks / "3.png")
    values = np.zeros((12, 17), np.uint8)
    values[3, 3] = 255
    Image.fromarray(values).save(masks / "2.png")
    run(bowl, "bowl2018", targets="instances")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(
        "26 instances came in, 24 are used with 240 points, 2 are left out (1 whose mask cannot be read or is of "
        "another size, first mask 2.png of case00.png; 1 whose mask is empty, first mask 3.png of case00.png)"
    )


def test_a_stack_is_refused(tmp_path, run):
    for k in range(4):
        (tmp_path / "maps" / "images").mkdir(parents=True, exist_ok=True)
        (tmp_path / "maps" / "masks").mkdir(exist_ok=True)
        pixels = np.random.RandomState(k).randint(0, 255, (2, 5, 6), np.uint8)
        tifffile.imwrite(tmp_path / "maps" / "images" / f"{k}.tif", pixels if k == 2 else pixels[0])
        tifffile.imwrite(tmp_path / "maps" / "masks" / f"{k}.tif", np.eye(5, 6, dtype=np.uint16))
    with pytest.raises(ValueError, match=r"2\.tif: a stack of 2 images, expected one"):
        run(tmp_path / "maps", "instance_maps", ratios=(2, 1, 1))
