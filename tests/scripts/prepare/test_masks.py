import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from PIL import Image

from clinbundles.scripts.prepare.datalist import SPLITS, items_of


def test_monai_reads_the_splits_and_every_file_is_there(plain, run):
    content = run(plain)
    assert [content[f"num{s.capitalize()}"] for s in SPLITS] == [6, 2, 2]
    for split in SPLITS:
        items = load_decathlon_datalist(plain.parent / "datalist.json", True, split, plain)
        assert len(items) == content[f"num{split.capitalize()}"]
        assert all(Path(item[key]).is_file() for item in items for key in ("image", "label"))
    assert content["labels"] == {"0": "background", "1": "polyp"}


def test_the_hashes_name_the_data_whatever_the_split(plain, run):
    first, second = run(plain, seed=0), run(plain, seed=1)
    assert [i["image"] for i in first["test"]] != [i["image"] for i in second["test"]]
    assert first["data_sha256"] == second["data_sha256"]
    item = first["training"][0]
    both = (plain / item["image"]).read_bytes() + (plain / item["label"]).read_bytes()
    assert item["source_sha256"] == hashlib.sha256(both).hexdigest()
    Image.new("L", (40, 30), 255).save(plain / item["label"])
    assert run(plain)["data_sha256"] != first["data_sha256"]


def test_the_hash_of_the_data_is_the_same_under_other_names_and_in_other_folders(plain, run, tmp_path):
    before = run(plain)
    other = tmp_path / "other"
    for name in ("images", "masks"):
        (other / name).mkdir(parents=True)
        for path in (plain / name).iterdir():
            shutil.copyfile(path, other / name / f"z{9 - int(path.stem[1:])}{path.suffix}")
    after = run(other)
    assert after["data_sha256"] == before["data_sha256"]
    assert [item["source_sha256"] for item in items_of(after)] != [item["source_sha256"] for item in items_of(before)]


def test_running_twice_writes_the_same_bytes_and_leaves_nothing_else(plain, run):
    run(plain)
    before = (plain.parent / "datalist.json").read_bytes()
    run(plain)
    assert (plain.parent / "datalist.json").read_bytes() == before
    assert sorted(p.name for p in plain.parent.iterdir()) == ["datalist.json", "plain"]


def test_jpeg_masks_split_like_png_masks(tmp_path, plain, write_pairs, run):
    other = write_pairs(tmp_path / "other", mask_suffix=".jpg")
    names = [[Path(i["image"]).name for i in run(root)["test"]] for root in (plain, other)]
    assert names[0] == names[1]


def test_near_duplicates_stay_in_one_split(plain, run):
    for k in range(4):
        with Image.open(plain / "images" / "i0.jpg") as image:
            image.save(plain / "images" / f"copy{k}.jpg", quality=60)
        shutil.copy(plain / "masks" / "i0.png", plain / "masks" / f"copy{k}.png")
    content = run(plain)
    found = [s for s in SPLITS for i in content[s] if "copy" in i["image"] or i["image"].endswith("/i0.jpg")]
    assert len(found) == 5
    assert len(set(found)) == 1
    assert len(content["near_duplicates"]) == 10


def test_counts_may_be_given_in_place_of_ratios(plain, run):
    content = run(plain, ratios=(4, 3, 3))
    assert [len(content[s]) for s in SPLITS] == [4, 3, 3]


@pytest.mark.parametrize("ratios", [(0, 0, 1), (1, 0, 0), (7, 0, 3)])
def test_a_split_of_share_nothing_is_not_there_for_monai_takes_its_first_item_to_know_its_kind(plain, run, ratios):
    content = run(plain, ratios=ratios)
    assert [name for name in SPLITS if name in content] == [n for n, share in zip(SPLITS, ratios, strict=True) if share]
    assert len(items_of(content)) == 10
    assert [content[f"num{name.capitalize()}"] for name in SPLITS] == [len(content.get(name, [])) for name in SPLITS]


def test_one_image_is_enough_for_a_list_of_test_images_alone(tmp_path, write_pairs, run):
    assert len(run(write_pairs(tmp_path / "one", 1), ratios=(0, 0, 1))["test"]) == 1


def break_missing_mask(root):
    (root / "masks" / "i3.png").unlink()


def break_missing_image(root):
    (root / "images" / "i3.jpg").unlink()


def break_size(root):
    Image.new("L", (41, 30)).save(root / "masks" / "i3.png")


def break_truncated(root):
    data = (root / "images" / "i3.jpg").read_bytes()
    (root / "images" / "i3.jpg").write_bytes(data[: len(data) * 2 // 3])


def break_content(root):
    (root / "masks" / "i3.png").write_text("not an image")


DAMAGE = [
    (break_missing_mask, r"i3\.jpg: image without mask"),
    (break_missing_image, r"i3\.png: mask without image"),
    (break_size, r"i3\.png: mask of 41x30 px, its image has 40x30"),
    (break_truncated, r"i3\.jpg: not a readable image file"),
    (break_content, r"i3\.png: not a readable image file"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_a_bad_file_is_named_and_nothing_is_written(plain, damage, message, run):
    damage(plain)
    with pytest.raises(ValueError, match=message):
        run(plain)
    assert not (plain.parent / "datalist.json").exists()


def test_skip_bad_lists_every_bad_file_with_its_reason_and_goes_on(plain, capsys, write_pairs, run):
    write_pairs(plain, 14)
    for k, (damage, _) in enumerate(DAMAGE):
        for folder, suffix in (("images", ".jpg"), ("masks", ".png")):  # the damage is always to pair 3
            shutil.copy(plain / folder / f"i4{suffix}", plain / folder / f"i3{suffix}")
        damage(plain)
        for folder, suffix in (("images", ".jpg"), ("masks", ".png")):
            if (plain / folder / f"i3{suffix}").exists():
                (plain / folder / f"i3{suffix}").rename(plain / folder / f"bad{k}{suffix}")
    content = run(plain, skip_bad=True)
    assert len(items_of(content)) == 13
    assert len(content["skipped"]) == len(DAMAGE)
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == (
        "plain: 18 pairs came in, 13 are used, 5 are left out (1 images without mask, first images/bad0.jpg; 3 that "
        "are bad, first images/bad2.jpg; 1 masks without image, first masks/bad1.png); wrote "
        f"{plain.parent / 'datalist.json'}"
    )
    for entry in content["skipped"]:
        assert str(plain) not in entry["reason"]
        assert Path(entry["file"]).stem in entry["reason"]
        assert f"skipped {entry['file']}: " in printed
    assert not any("bad" in item["image"] for item in items_of(content))


def test_files_of_operating_systems_beside_the_images_are_passed_over_and_counted(plain, run, capsys):
    before = items_of(run(plain))
    assert "passed over" not in capsys.readouterr().out
    (plain / "images" / "._i0.jpg").write_bytes(b"\0\5\x16\7" + bytes(100))
    (plain / "images" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
    (plain / "masks" / "desktop.ini").write_text("[.ShellClassInfo]")
    assert items_of(run(plain)) == before
    said = capsys.readouterr().out
    assert "3 files beside the images and masks are no images and were passed over, first ._i0.jpg" in said
    assert "10 pairs came in, 10 are used, 0 are left out; wrote" in said


def test_a_data_set_of_bad_files_alone_is_refused(tmp_path, write_pairs, run):
    root = write_pairs(tmp_path / "bad", 3)
    for k in range(3):
        (root / "masks" / f"i{k}.png").write_text("not an image")
    with pytest.raises(ValueError, match="bad: no pair of 3 is of use"):
        run(root, skip_bad=True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"ratios": (6, 2)}, "expected three numbers"),
        ({"ratios": (0, 0, 0)}, "expected three numbers, not all of them 0"),
        ({"ratios": (6, 2, -2)}, "expected three numbers"),
        ({"ratios": "most"}, "expected three numbers"),
        ({"ratios": (6, 2, float("nan"))}, "expected three numbers"),
        ({"ratios": (6, 2, 2), "split": "official"}, "--ratios are of a random split"),
        ({"ratios": (6, 2, 3)}, "sum to 11: expected 1, 10, 100 or the number of images, 10"),
        ({"seed": 1.5}, "--seed is 1.5"),
        ({"seed": -1}, "--seed is -1"),
        ({"split": "official"}, "no official split here"),
        ({"intensity_range": (255, 0)}, r"intensity_range is \(255, 0\)"),
    ],
)
def test_a_wrong_flag_is_named(plain, flags, message, run):
    with pytest.raises(ValueError, match=message):
        run(plain, **flags)
    assert not (plain.parent / "datalist.json").exists()


def test_two_images_are_too_few(tmp_path, write_pairs, run):
    with pytest.raises(ValueError, match="2 images in 2 groups are too few to split"):
        run(write_pairs(tmp_path / "two", 2))


def test_an_official_split_has_no_test_split(plain, run):
    (plain / "train.txt").write_text("".join(f"i{k}\n" for k in range(8)))
    (plain / "val.txt").write_text("i8\ni9\n")
    content = run(plain, split="official")
    assert [content[f"num{s.capitalize()}"] for s in SPLITS] == [8, 2, 0]
    assert "test" not in content
    assert content["seed"] is None


def test_an_official_split_with_near_duplicates_across_it_is_taken_with_a_warning(plain, capsys, run):
    for folder, suffix in (("images", ".jpg"), ("masks", ".png")):
        shutil.copy(plain / folder / f"i0{suffix}", plain / folder / f"i9{suffix}")
    (plain / "train.txt").write_text("".join(f"i{k}\n" for k in range(8)))
    (plain / "val.txt").write_text("i8\ni9\n")
    run(plain, split="official")
    assert "warning: 1 groups are in more than one list of the official split, first i0" in capsys.readouterr().out


def write_street(root, count=6):
    """KITTI's layout: ids 7 and 26 (car) in stripes, which move."""
    for name in ("image_2", "semantic"):
        (root / "training" / name).mkdir(parents=True)
    for k in range(count):
        scene = np.random.RandomState(k).randint(0, 256, (20, 40, 3), dtype=np.uint8)
        ids = np.full((20, 40), 7, np.uint8)
        ids[:, k : k + 10] = 26
        Image.fromarray(scene).save(root / "training" / "image_2" / f"{k:06}_10.png")
        Image.fromarray(ids).save(root / "training" / "semantic" / f"{k:06}_10.png")
    return root


def test_converted_masks_lie_beside_the_datalist_and_open_from_the_data_set(tmp_path, capsys, run):
    root = write_street(tmp_path / "data" / "kitti")
    content = run(root, "kitti", ratios=(50, 0, 50))
    assert content["labels"] == {"0": "background", "1": "vehicle"}
    assert "validation" not in content
    assert content["numValidation"] == 0
    for item in items_of(content):
        mask = np.asarray(Image.open(os.path.join(root, item["label"])))
        assert sorted(np.unique(mask)) == [0, 255]
        assert (mask == 255).mean() == 0.25
    assert len(list((tmp_path / "datalist_masks").rglob("*.png"))) == 6
    assert not list(tmp_path.rglob("*.part"))
    assert "0 masks without any vehicle; vehicle: 25.0% of an image" in capsys.readouterr().out


def test_converted_masks_open_from_a_linked_data_set_too(tmp_path, run):
    root = write_street(tmp_path / "far" / "away" / "kitti")
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    content = run(tmp_path / "link", "kitti")
    assert all(os.path.isfile(os.path.join(tmp_path / "link", item["label"])) for item in items_of(content))


def test_a_mask_of_another_size_than_its_image_is_named(tmp_path, run):
    root = write_street(tmp_path / "kitti")
    Image.new("L", (41, 20)).save(root / "training" / "semantic" / "000003_10.png")
    with pytest.raises(ValueError, match=r"semantic/000003_10\.png: mask of 41x20 px, its image has 40x20"):
        run(root, "kitti")
    assert not (tmp_path / "datalist_masks").exists()


def test_deep_images_need_the_range_that_is_then_written_down(plain, run):
    for path in (plain / "images").iterdir():
        with Image.open(path) as image:
            Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 16).save(path.with_suffix(".png"))
        path.unlink()
    with pytest.raises(ValueError, match=r"i0\.png: .*intensity_range"):
        run(plain)
    content = run(plain, intensity_range=(0, 4095))
    assert content["intensity_range"] == [0, 4095]
    assert len(items_of(content)) == 10
