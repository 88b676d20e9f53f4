from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clinbundles.engines.data_hash import data_hash
from clinbundles.scripts.prepare.classes import (
    ClassSet,
    LabelledImage,
    as_items,
    check,
    count_balance,
    leaks,
    split_classes,
    undersample,
    write_classes,
)
from clinbundles.transforms.readers.chest_xray import ChestXRayReader

CLASSES = ("normal", "bacterial", "covid19")
PAPER = {"normal": 544, "bacterial": 500, "covid19": 456}


def images_of(counts: dict[str, int], *, per_patient: int = 1) -> list[LabelledImage]:
    return [
        LabelledImage(Path(f"{name}/{k}.png"), name, f"{name}-{k // per_patient}", "here")
        for name, count in counts.items()
        for k in range(count)
    ]


def sizes(splits: dict[str, list[LabelledImage]]) -> dict[str, list[int]]:
    counts = {name: Counter(item.class_name for item in items) for name, items in splits.items()}
    return {name: [count[c] for c in CLASSES] for name, count in counts.items()}


def crossing(splits: dict[str, list[LabelledImage]]) -> set[str]:
    """Groups in more than one split."""
    where = defaultdict(set)
    for name, items in splits.items():
        for item in items:
            where[item.group].add(name)
    return {group for group, names in where.items() if len(names) > 1}


@pytest.mark.parametrize("by_group", [True, False])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_papers_1500_images_split_as_in_the_paper(by_group: bool, seed: int) -> None:
    splits = split_classes(images_of(PAPER), seed=seed, by_group=by_group)
    assert sizes(splits) == {"training": [382, 350, 320], "validation": [54, 50, 45], "test": [108, 100, 91]}


def test_without_test_an_eighth_goes_to_validation() -> None:
    assert sizes(split_classes(images_of(PAPER), seed=0, test=False)) == {
        "training": [476, 438, 399],
        "validation": [68, 62, 57],
    }


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["ab", "a", "b"])), min_size=40, max_size=80),
    st.integers(0, 2**32 - 1),
)
def test_no_patient_crosses_splits_and_no_image_is_lost_or_doubled(groups: list[tuple[int, str]], seed: int) -> None:
    images = [
        LabelledImage(Path(f"{g}-{k}.png"), classes[k % len(classes)], f"g{g}", "here")
        for g, (size, classes) in enumerate(groups)
        for k in range(size)
    ] + images_of({"a": 40, "b": 40})
    splits = split_classes(images, seed=seed)
    assert not crossing(splits)
    assert sorted(item.image for items in splits.values() for item in items) == sorted(i.image for i in images)
    assert all({item.class_name for item in items} == {"a", "b"} for items in splits.values())


def test_patients_of_many_images_come_close_to_the_shares() -> None:
    found = sizes(split_classes(images_of(PAPER, per_patient=3), seed=0))
    for name, expected in {"training": [382, 350, 320], "validation": [54, 50, 45], "test": [108, 100, 91]}.items():
        assert found[name] == pytest.approx(expected, abs=3)


def test_patients_with_images_of_two_classes_are_split_among_themselves() -> None:
    both = [
        LabelledImage(Path(f"p{k}-{name}.png"), name, f"p{k}", "here")
        for k in range(50)
        for name in ("normal", "bacterial")
    ]
    splits = split_classes([*both, *images_of(PAPER)], seed=0)
    assert not crossing(splits)
    shares = {name: sum(item.group.startswith("p") for item in items) for name, items in splits.items()}
    assert shares == {"training": 70, "validation": 10, "test": 20}


def test_image_by_image_a_patient_crosses_and_is_counted() -> None:
    images = images_of(PAPER, per_patient=4)
    splits = split_classes(images, seed=0, by_group=False)
    assert crossing(splits)
    found = leaks(splits["training"], splits["test"])
    assert found["test_images"] == 299
    assert found["seen_images"] == 0
    assert found["images_of_seen_patients"] > 200
    everything = leaks(images, splits["test"])
    assert everything["seen_images"] == everything["images_of_seen_patients"] == 299
    by_patient = split_classes(images, seed=0)
    assert leaks(by_patient["training"], by_patient["test"])["images_of_seen_patients"] == 0


def test_the_order_of_the_images_does_not_matter_and_the_seed_decides() -> None:
    images = images_of(PAPER, per_patient=2)

    def test_images(images: list[LabelledImage], seed: int) -> set[Path]:
        return {item.image for item in split_classes(images, seed=seed)["test"]}

    assert test_images(images, 0) == test_images(images[::-1], 0)
    assert test_images(images, 0) != test_images(images, 1)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"normal": 40, "bacterial": 4}, "class bacterial has too few images or patients: validation gets none of it"),
        ({"normal": 8, "bacterial": 40}, "class normal has too few images or patients: validation gets none of it"),
    ],
)
def test_a_class_that_a_split_would_lack_is_named(counts: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_classes(images_of(counts), seed=0)


def test_a_class_of_two_patients_is_too_few() -> None:
    with pytest.raises(ValueError, match="class normal has too few images or patients: validation gets none"):
        split_classes([*images_of({"normal": 40}, per_patient=20), *images_of({"bacterial": 40})], seed=0)


def test_ten_images_of_a_class_are_enough() -> None:
    assert sizes(split_classes(images_of(dict.fromkeys(CLASSES, 10)), seed=0)) == {
        "training": [7] * 3,
        "validation": [1] * 3,
        "test": [2] * 3,
    }


def test_undersampling_takes_as_many_as_asked_for_and_keeps_the_order() -> None:
    images = images_of({"normal": 30, "bacterial": 20, "covid19": 5})
    chosen = undersample(images, {"normal": 5, "bacterial": 20}, seed=3)
    assert Counter(item.class_name for item in chosen) == {"normal": 5, "bacterial": 20}
    assert chosen == [item for item in images if item in chosen]
    assert chosen == undersample(images, {"bacterial": 20, "normal": 5}, seed=3)
    assert chosen != undersample(images, {"normal": 5, "bacterial": 20}, seed=4)
    again = undersample(images[::-1], {"normal": 5, "bacterial": 20}, seed=3)
    assert {item.image for item in again} == {item.image for item in chosen}


def test_more_than_there_is_cannot_be_chosen() -> None:
    with pytest.raises(ValueError, match="21 images of class normal asked for, there are 20"):
        undersample(images_of({"normal": 20}), {"normal": 21}, seed=0)
    with pytest.raises(ValueError, match="1 images of class covid19 asked for, there are 0"):
        undersample(images_of({"normal": 20}), {"covid19": 1}, seed=0)


def test_patients_whose_x_rays_are_copies_become_one(tmp_path: Path, write_x_ray: Callable[..., Path]) -> None:
    files = [write_x_ray(tmp_path / f"{k}.png", seed=k) for k in range(3)]
    copy = tmp_path / "copy.jpg"
    with Image.open(files[1]) as image:
        image.resize((50, 50)).save(copy, quality=90)
    images = [LabelledImage(path, "normal", f"p{k}", "here") for k, path in enumerate([*files, copy])]
    inspection = check(images, root=tmp_path, reader=ChestXRayReader(), skip_bad=False)
    assert {item.image.name: item.group for item in inspection.images} == {
        "0.png": "p0",
        "1.png": "p1",
        "2.png": "p2",
        "copy.jpg": "p1",
    }
    assert inspection.duplicates == [(files[1], copy)]
    assert [item.group for item in images] == ["p0", "p1", "p2", "p3"]


def test_copies_of_one_patient_are_no_news(tmp_path: Path, write_x_ray: Callable[..., Path]) -> None:
    images = [
        LabelledImage(write_x_ray(tmp_path / f"{k}.png", seed=0, size=(60 + k, 60 + k)), "normal", "p", "here")
        for k in (0, 1)
    ]
    assert check(images, root=tmp_path, reader=ChestXRayReader(), skip_bad=False).duplicates == []


def test_a_file_that_is_refused_stops_or_is_listed(tmp_path: Path, write_x_ray: Callable[..., Path]) -> None:
    good = LabelledImage(write_x_ray(tmp_path / "a" / "good.png", seed=0), "normal", "p0", "here")
    (tmp_path / "a" / "bad.png").write_bytes(b"nothing")
    bad = LabelledImage(tmp_path / "a" / "bad.png", "normal", "p1", "here")
    with pytest.raises(ValueError, match=r"bad\.png: not a readable image file"):
        check([good, bad], root=tmp_path, reader=ChestXRayReader(), skip_bad=False)
    inspection = check([bad, good], root=tmp_path, reader=ChestXRayReader(), skip_bad=True)
    assert inspection.images == [good]
    reason = "a/bad.png: not a readable image file (no known format)."
    assert inspection.faults == [{"file": "a/bad.png", "reason": reason}]
    nothing = check([bad], root=tmp_path, reader=ChestXRayReader(), skip_bad=True)
    assert nothing.images == nothing.duplicates == []
    data = ClassSet([bad], arrange=lambda images, *, seed: pytest.fail("there is nothing to arrange"))
    with pytest.raises(ValueError, match=r"no image of 1 is of use, first a/bad\.png: not a readable"):
        write_classes(data, root=tmp_path, target=tmp_path / "list.json", skip_bad=True)
    assert not (tmp_path / "list.json").exists()


def test_the_hash_follows_the_files_and_not_their_order_or_folders(
    tmp_path: Path, write_x_ray: Callable[..., Path]
) -> None:
    def sha256(images: list[LabelledImage]) -> str:
        return data_hash(check(images, root=tmp_path, reader=ChestXRayReader(), skip_bad=False).digests)

    images = [LabelledImage(write_x_ray(tmp_path / f"{k}.png", seed=k), "normal", f"p{k}", "x") for k in range(3)]
    before = sha256(images)
    assert sha256(images[::-1]) == before
    (tmp_path / "z").mkdir()
    moved = [replace(i, image=i.image.rename(tmp_path / "z" / f"{9 - k}.png")) for k, i in enumerate(images)]
    assert sha256(moved) == before
    write_x_ray(moved[1].image, seed=9)
    assert sha256(moved) != before


def test_items_start_from_the_folder_and_number_the_classes() -> None:
    image = LabelledImage(Path("data/a/b.png"), "bacterial", "p", "here")
    assert list(as_items([image], root=Path("data"), class_names=CLASSES)) == [
        {"image": "a/b.png", "label": 1, "group": "p", "source": "here"}
    ]


def test_the_images_that_a_seed_draws_and_splits_never_change() -> None:
    images = images_of({"normal": 40, "bacterial": 30}, per_patient=2)
    drawn = undersample(images, {"normal": 24, "bacterial": 20}, seed=5)
    splits = split_classes(drawn, seed=5)
    names = {split: [image.image.as_posix() for image in members] for split, members in splits.items()}
    assert names["test"] == [f"normal/{k}.png" for k in (3, 6, 25, 29)] + [f"bacterial/{k}.png" for k in (4, 5, 13, 20)]
    assert names["validation"] == ["normal/14.png", "normal/20.png", "bacterial/10.png", "bacterial/28.png"]


def test_ratios_take_the_place_of_the_papers_shares() -> None:
    images = images_of({"normal": 40, "bacterial": 20})
    assert {name: len(items) for name, items in split_classes(images, seed=0, ratios=(5, 2, 3)).items()} == {
        "training": 30,
        "validation": 12,
        "test": 18,
    }
    assert list(split_classes(images, seed=0, ratios=(0, 0, 1))) == ["test"]


def test_a_balance_counts_all_as_many_as_the_rarest_or_what_it_says() -> None:
    images = images_of({"normal": 4, "bacterial": 2, "covid19": 3})
    assert count_balance("none", images, CLASSES) == {"normal": 4, "bacterial": 2, "covid19": 3}
    assert count_balance("smallest", images, CLASSES) == dict.fromkeys(CLASSES, 2)
    assert count_balance((3, 2, 1), images, CLASSES) == {"normal": 3, "bacterial": 2, "covid19": 1}
    with pytest.raises(ValueError, match="there is no image of class other"):
        count_balance("none", images, [*CLASSES, "other"])
