import csv
import hashlib
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from PIL import Image

from clinbundles.transforms.gaze.attention_map import as_observers

SCRIPT = Path(__file__).parents[3] / "scripts" / "prepare" / "command.py"
SPLITS = ("training", "validation", "test")


def load_script():
    spec = importlib.util.spec_from_file_location("prepare_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks up the module it is defined in
    spec.loader.exec_module(module)
    return module


prepare = load_script()


def items_of(content):
    return [item for split in SPLITS for item in content.get(split, [])]


def write_pairs(root, count=10, mask_suffix=".png"):
    """A plain data set of ``count`` unlike images with half-white masks."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for k in range(count):
        coarse = np.random.RandomState(k).randint(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((40, 30), Image.Resampling.BICUBIC).save(root / "images" / f"i{k}.jpg")
        mask = np.zeros((30, 40), np.uint8)
        mask[:, :20] = 255
        Image.fromarray(mask).save(root / "masks" / f"i{k}{mask_suffix}")
    return root


@pytest.fixture
def plain(tmp_path):
    return write_pairs(tmp_path / "plain")


def run(root, layout="folder", **flags):
    output = root.parent / "datalist.json"
    getattr(prepare, layout)(str(root), str(output), **flags)
    return json.loads(output.read_text())


def write_gaze(path, rows):
    """Fixations (image, x, y, duration_ms) in the columns of GazeMedSeg."""
    names = "IMAGE,CURRENT_FIX_INDEX,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,CURRENT_FIX_PUPIL"
    names += ",CURRENT_FIX_START,IMAGE_HEIGHT,IMAGE_WIDTH"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(names.split(","))
        writer.writerows([name, k + 1, x, y, ms, 900, 0, 30, 40] for k, (name, x, y, ms) in enumerate(rows))
    return path


def test_monai_reads_the_splits_and_every_file_is_there(plain):
    content = run(plain)
    assert [content[f"num{s.capitalize()}"] for s in SPLITS] == [6, 2, 2]
    for split in SPLITS:
        items = load_decathlon_datalist(plain.parent / "datalist.json", True, split, plain)
        assert len(items) == content[f"num{split.capitalize()}"]
        assert all(Path(item[key]).is_file() for item in items for key in ("image", "label"))
    assert content["labels"] == {"0": "background", "1": "polyp"}


def test_the_hashes_name_the_data_whatever_the_split(plain):
    first, second = run(plain, seed=0), run(plain, seed=1)
    assert [i["image"] for i in first["test"]] != [i["image"] for i in second["test"]]
    assert first["data_sha256"] == second["data_sha256"]
    item = first["training"][0]
    both = (plain / item["image"]).read_bytes() + (plain / item["label"]).read_bytes()
    assert item["source_sha256"] == hashlib.sha256(both).hexdigest()
    Image.new("L", (40, 30), 255).save(plain / item["label"])
    assert run(plain)["data_sha256"] != first["data_sha256"]


def test_running_twice_writes_the_same_bytes_and_leaves_nothing_else(plain):
    run(plain)
    before = (plain.parent / "datalist.json").read_bytes()
    run(plain)
    assert (plain.parent / "datalist.json").read_bytes() == before
    assert sorted(p.name for p in plain.parent.iterdir()) == ["datalist.json", "plain"]


def test_jpeg_masks_split_like_png_masks(tmp_path, plain):
    other = write_pairs(tmp_path / "other", mask_suffix=".jpg")
    names = [[Path(i["image"]).name for i in run(root)["test"]] for root in (plain, other)]
    assert names[0] == names[1]


def test_near_duplicates_stay_in_one_split(plain):
    for k in range(4):
        with Image.open(plain / "images" / "i0.jpg") as image:
            image.save(plain / "images" / f"copy{k}.jpg", quality=60)
        shutil.copy(plain / "masks" / "i0.png", plain / "masks" / f"copy{k}.png")
    content = run(plain)
    found = [s for s in SPLITS for i in content[s] if "copy" in i["image"] or i["image"].endswith("/i0.jpg")]
    assert len(found) == 5
    assert len(set(found)) == 1
    assert len(content["near_duplicates"]) == 10


def test_counts_may_be_given_in_place_of_ratios(plain):
    content = run(plain, ratios=(4, 3, 3))
    assert [len(content[s]) for s in SPLITS] == [4, 3, 3]


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
def test_a_bad_file_is_named_and_nothing_is_written(plain, damage, message):
    damage(plain)
    with pytest.raises(ValueError, match=message):
        run(plain)
    assert not (plain.parent / "datalist.json").exists()


def test_skip_bad_lists_every_bad_file_with_its_reason_and_goes_on(plain, capsys):
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
    for entry in content["skipped"]:
        assert str(plain) not in entry["reason"]
        assert Path(entry["file"]).stem in entry["reason"]
        assert f"skipped {entry['file']}: " in printed
    assert not any("bad" in item["image"] for item in items_of(content))


def test_a_data_set_of_bad_files_alone_is_too_small_to_split(tmp_path):
    root = write_pairs(tmp_path / "bad", 3)
    for k in range(3):
        (root / "masks" / f"i{k}.png").write_text("not an image")
    with pytest.raises(ValueError, match="0 images in 0 groups are too few"):
        run(root, skip_bad=True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"ratios": (6, 2)}, "expected three positive numbers"),
        ({"ratios": (6, 2, 0)}, "expected three positive numbers"),
        ({"ratios": (0, 2, 6)}, "expected three positive numbers"),
        ({"ratios": (6, 2, -2)}, "expected three positive numbers"),
        ({"ratios": "most"}, "expected three positive numbers"),
        ({"ratios": (6, 2, float("nan"))}, "expected three positive numbers"),
        ({"ratios": (6, 2, 3)}, "sum to 11: expected 1, 10, 100 or the number of images, 10"),
        ({"seed": 1.5}, "--seed is 1.5"),
        ({"seed": -1}, "--seed is -1"),
        ({"skip_bad": "yes"}, "--skip-bad is 'yes'"),
        ({"split": "best"}, "--split is 'best'"),
        ({"split": "official"}, "no official split here"),
        ({"sede": 3}, "unknown flags: --sede"),
        ({"observer": 2}, "unknown flags: --observer"),
        ({"foreground": "polyp"}, "--foreground is 'polyp'"),
        ({"intensity_range": (255, 0)}, r"intensity_range is \(255, 0\)"),
        ({"join_duplicates": "maybe"}, "--join_duplicates is 'maybe'"),
    ],
)
def test_a_wrong_flag_is_named(plain, flags, message):
    with pytest.raises(ValueError, match=message):
        run(plain, **flags)
    assert not (plain.parent / "datalist.json").exists()


def test_two_images_are_too_few(tmp_path):
    with pytest.raises(ValueError, match="2 images in 2 groups are too few to split"):
        run(write_pairs(tmp_path / "two", 2))


@pytest.mark.parametrize("layout", sorted(prepare.COMMANDS))
def test_a_missing_folder_is_named(tmp_path, layout):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder"):
        run(tmp_path / "nowhere", layout)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty.*: no (such )?folder"):
        run(tmp_path / "empty", layout)


def test_an_output_in_a_missing_folder_is_refused_before_any_work(plain):
    with pytest.raises(ValueError, match="expected a file in a folder that exists"):
        prepare.folder(str(plain), str(plain / "no" / "list.json"))


def test_an_official_split_has_no_test_split(plain):
    (plain / "train.txt").write_text("".join(f"i{k}\n" for k in range(8)))
    (plain / "val.txt").write_text("i8\ni9\n")
    content = run(plain, split="official")
    assert [content[f"num{s.capitalize()}"] for s in SPLITS] == [8, 2, 0]
    assert "test" not in content
    assert content["seed"] is None


def test_an_official_split_with_near_duplicates_across_it_is_taken_with_a_warning(plain, capsys):
    for folder, suffix in (("images", ".jpg"), ("masks", ".png")):
        shutil.copy(plain / folder / f"i0{suffix}", plain / folder / f"i9{suffix}")
    (plain / "train.txt").write_text("".join(f"i{k}\n" for k in range(8)))
    (plain / "val.txt").write_text("i8\ni9\n")
    run(plain, split="official")
    assert "warning: 1 groups are in more than one list of the official split, first i0" in capsys.readouterr().out


def test_gaze_of_two_observers_is_attached_and_images_without_are_counted(plain, capsys):
    write_gaze(plain.parent / "gaze_1.csv", [("i0.jpg", 0.25, 0.5, 200), ("i0.jpg", 0.75, 0.5, 100)])
    write_gaze(plain.parent / "gaze_2.csv", [("i0.jpg", 0.1, 0.2, 300), ("i1.jpg", 0.3, 0.4, 400)])
    content = run(plain, gaze=str(plain.parent / "gaze_*.csv"))
    by_name = {Path(item["image"]).name: item for item in items_of(content)}
    assert by_name["i0.jpg"]["fixations"] == [[[0.25, 0.5, 200], [0.75, 0.5, 100]], [[0.1, 0.2, 300]]]
    assert by_name["i1.jpg"]["fixations"] == [[[0.3, 0.4, 400]]]
    assert by_name["i0.jpg"]["gaze_source"] == "recorded"
    assert "fixations" not in by_name["i2.jpg"]
    assert [rows.shape for rows in as_observers(by_name["i0.jpg"]["fixations"])] == [(2, 3), (1, 3)]
    assert content["gaze"]["source"] == "recorded"
    assert sorted(content["gaze"]["files"]) == ["gaze_1.csv", "gaze_2.csv"]
    assert "recorded gaze of 2 observers; 8 of 10 images have none" in capsys.readouterr().out


def test_gaze_does_not_change_the_split(plain):
    without = run(plain)
    gaze = write_gaze(plain.parent / "gaze.csv", [("i0.jpg", 0.25, 0.5, 200)])
    with_gaze = run(plain, gaze=str(gaze))
    assert [i["image"] for i in items_of(without)] == [i["image"] for i in items_of(with_gaze)]
    assert without["data_sha256"] == with_gaze["data_sha256"]


def test_gaze_on_an_unknown_image_is_an_error_that_names_it(plain):
    gaze = write_gaze(plain.parent / "gaze.csv", [("i0.jpg", 0.5, 0.5, 200), ("who.jpg", 0.5, 0.5, 200)])
    with pytest.raises(ValueError, match=r"gaze\.csv: gaze on 1 images that are not there, the first is who\.jpg"):
        run(plain, gaze=str(gaze))


def test_a_gaze_file_that_is_not_there_is_named(plain):
    with pytest.raises(FileNotFoundError, match=r"--gaze .*none\*\.csv: no such file"):
        run(plain, gaze=str(plain / "none*.csv"))


@pytest.mark.parametrize(
    ("stem", "centre", "group"),
    [
        ("102OLCV1_100H0006", "C1", "C1_102OLCV1"),
        ("136OLCV1_100S0005", "C1", "C1_136OLCV1"),
        ("EndoCV2021_001000", "C2", "EndoCV2021_001000"),
        ("C3_EndoCV2021_00147", "C3", "C3_EndoCV2021_00147"),
        ("14_endocv2021_positive_902", "C4", "C4_14"),
        ("35_endocv2021_negative_1027", "C4", "C4_35"),
        ("EndoCV2021_C6_0100001", "C6", "EndoCV2021_C6_0100001"),
    ],
)
def test_polypgen_names_give_the_patient_or_sequence(stem, centre, group):
    assert prepare.polypgen_group(stem, centre=centre) == group


def test_the_shipped_datalist_is_what_the_command_writes(polyp_samples, tmp_path):
    prepare.polypgen(str(polyp_samples), str(tmp_path / "again.json"), ratios=(20, 6, 6), seed=2)
    again, shipped = (json.loads(p.read_text()) for p in (tmp_path / "again.json", polyp_samples / "datalist.json"))
    for content in (again, shipped):
        content.pop("gaze", None)  # simulated gaze may have been added since
        for item in items_of(content):
            item.pop("fixations", None)
            item.pop("gaze_source", None)
    assert shipped == again


def test_the_samples_have_polyps_of_every_centre_in_every_split(polyp_samples):
    content = json.loads((polyp_samples / "datalist.json").read_text())
    assert [len(content[s]) for s in SPLITS] == [20, 6, 6]
    groups = [{item["group"] for item in content[s]} for s in SPLITS]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    for split in SPLITS:
        shares = [np.asarray(Image.open(polyp_samples / i["label"])).mean() for i in content[split]]
        assert np.count_nonzero(shares) >= 5
        assert {i["image"].split("/")[1] for i in content[split]} == {"data_C1", "data_C2", "data_C4"}


def test_the_samples_are_small_attributed_and_carry_no_metadata(polyp_samples):
    assert sum(path.stat().st_size for path in polyp_samples.rglob("*") if path.is_file()) < 1.5e6
    readme = (polyp_samples / "README.md").read_text()
    assert all(text in readme for text in ("CC BY 4.0", "10.1038/s41597-023-01981-y", "downscaled"))
    images = sorted(polyp_samples.rglob("*.jpg"))
    assert len(images) == 32
    for path in images:
        with Image.open(path) as image:
            assert not image.getexif()


def test_kvasir_splits_600_200_200_and_has_four_near_duplicate_pairs(shared_data, tmp_path):
    folder = shared_data / "kvasir_seg"
    if not folder.is_dir():
        pytest.skip(f"no Kvasir-SEG: {folder} is missing")
    prepare.kvasir_seg(str(folder / "Kvasir-SEG"), str(tmp_path / "k.json"))
    content = json.loads((tmp_path / "k.json").read_text())
    assert [len(content[s]) for s in SPLITS] == [600, 200, 200]
    assert len(content["near_duplicates"]) == 4
    where = {item["image"]: split for split in SPLITS for item in content[split]}
    assert len(where) == 1000
    assert all(where[first] == where[second] for first, second in content["near_duplicates"])


def test_kvasir_has_an_official_split_that_no_near_duplicate_crosses(shared_data, tmp_path, capsys):
    folder = shared_data / "kvasir_seg"
    if not folder.is_dir():
        pytest.skip(f"no Kvasir-SEG: {folder} is missing")
    prepare.kvasir_seg(str(folder), str(tmp_path / "k.json"), split="official")
    content = json.loads((tmp_path / "k.json").read_text())
    assert [content[f"num{s.capitalize()}"] for s in SPLITS] == [880, 120, 0]
    assert content["training"][0]["image"].startswith("Kvasir-SEG/images/")
    assert "warning" not in capsys.readouterr().out


def test_the_frames_of_a_polypgen_sequence_stay_together(shared_data, tmp_path):
    folder = shared_data / "polypgen_sample"
    if not folder.is_dir():
        pytest.skip(f"no PolypGen frames: {folder} is missing")
    prepare.polypgen(str(folder), str(tmp_path / "p.json"))
    content = json.loads((tmp_path / "p.json").read_text())
    assert [len(content[s]) for s in SPLITS] == [36, 12, 12]
    assert content["near_duplicates"] == []
    for group in ("C1_176OLCV1", "C4_14", "C4_22", "C4_23"):
        assert len({s for s in SPLITS for i in content[s] if i["group"] == group}) == 1


def test_the_command_line_takes_flags_and_puts_an_error_in_one_sentence(plain):
    output = plain.parent / "cli.json"
    flags = ["folder", "--dataset_dir", str(plain), "--output", str(output), "--ratios", "0.6,0.2,0.2", "--skip-bad"]
    break_size(plain)
    prepare.main(flags)
    assert len(json.loads(output.read_text())["skipped"]) == 1
    with pytest.raises(SystemExit, match=r"^prepare: .*i3\.png: mask of 41x30 px, its image has 40x30\.$"):
        prepare.main(flags[:-1])


def test_the_command_line_offers_every_data_set_with_its_help():
    paper = {"ph2", "retina", "chase_db1", "drive", "stare", "sartorius", "bowl2018", "kitti", "bdd100k", "livecell"}
    assert prepare.COMMANDS.keys() == {"kvasir_seg", "polypgen", "folder"} | paper
    assert all("dataset_dir: " in run.__doc__ for run in prepare.COMMANDS.values())


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


def test_converted_masks_lie_beside_the_datalist_and_open_from_the_data_set(tmp_path, capsys):
    root = write_street(tmp_path / "data" / "kitti")
    (tmp_path / "lists").mkdir()
    prepare.kitti(str(root), str(tmp_path / "lists" / "k.json"), ratios=(50, 0, 50))
    content = json.loads((tmp_path / "lists" / "k.json").read_text())
    assert content["labels"] == {"0": "background", "1": "vehicle"}
    assert "validation" not in content
    assert content["numValidation"] == 0
    for item in items_of(content):
        mask = np.asarray(Image.open(os.path.join(root, item["label"])))
        assert sorted(np.unique(mask)) == [0, 255]
        assert (mask == 255).mean() == 0.25
    assert len(list((tmp_path / "lists" / "k_masks").rglob("*.png"))) == 6
    assert not list(tmp_path.rglob("*.part"))
    assert "0 masks without any vehicle; vehicle: 25.0% of an image" in capsys.readouterr().out


def test_converted_masks_open_from_a_linked_data_set_too(tmp_path):
    root = write_street(tmp_path / "far" / "away" / "kitti")
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    prepare.kitti(str(tmp_path / "link"), str(tmp_path / "k.json"))
    content = json.loads((tmp_path / "k.json").read_text())
    assert all(os.path.isfile(os.path.join(tmp_path / "link", item["label"])) for item in items_of(content))


def test_a_mask_of_another_size_than_its_image_is_named(tmp_path):
    root = write_street(tmp_path / "kitti")
    Image.new("L", (41, 20)).save(root / "training" / "semantic" / "000003_10.png")
    with pytest.raises(ValueError, match=r"semantic/000003_10\.png: mask of 41x20 px, its image has 40x20"):
        run(root, "kitti")


def test_label_maps_of_a_plain_folder_need_their_foreground_ids(plain):
    ids = np.kron(np.array([[0, 1], [2, 5]], np.uint8), np.ones((15, 20), np.uint8))
    for path in (plain / "masks").iterdir():
        Image.fromarray(ids).save(path)
    with pytest.raises(ValueError, match=r"masks/i0\.png: 300 pixels of value \d: .*--foreground"):
        run(plain)
    for foreground, share in ((1, 0.25), ((1, 2), 0.5), ("2-5", 0.5), (9, 0)):
        content = run(plain, foreground=foreground, label="organ")
        masks = [np.asarray(Image.open(os.path.join(plain, item["label"]))) for item in items_of(content)]
        assert all((mask > 0).mean() == share for mask in masks)
    assert content["labels"]["1"] == "organ"


@pytest.mark.parametrize(
    ("ids", "found"), [(1, {1}), ((1, 2), {1, 2}), ("26-28", {26, 27, 28}), ("3,26-27", {3, 26, 27}), ([4], {4})]
)
def test_ids_are_numbers_and_ranges(ids, found):
    assert prepare.parse_ids(ids) == found


def test_deep_images_need_the_range_that_is_then_written_down(plain):
    for path in (plain / "images").iterdir():
        with Image.open(path) as image:
            Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 16).save(path.with_suffix(".png"))
        path.unlink()
    with pytest.raises(ValueError, match=r"i0\.png: .*intensity_range"):
        run(plain)
    content = run(plain, intensity_range=(0, 4095))
    assert content["intensity_range"] == [0, 4095]
    assert len(items_of(content)) == 10


def test_images_that_are_all_alike_can_be_kept_from_being_joined(plain):
    for k in range(1, 10):
        shutil.copy(plain / "images" / "i0.jpg", plain / "images" / f"i{k}.jpg")
    with pytest.raises(ValueError, match="10 images in 1 groups are too few"):
        run(plain)
    assert [len(run(plain, join_duplicates=False)[s]) for s in SPLITS] == [6, 2, 2]


def test_the_eyes_of_a_child_stay_together_in_chase(shared_data, tmp_path, capsys):
    folder = shared_data / "chase_db1"
    if not folder.is_dir():
        pytest.skip(f"no CHASE_DB1: {folder} is missing")
    prepare.chase_db1(str(folder), str(tmp_path / "c.json"))
    content = json.loads((tmp_path / "c.json").read_text())
    assert [len(content[s]) for s in SPLITS] == [18, 2, 8]
    where = {(item["group"], split) for split in SPLITS for item in content[split]}
    assert len(where) == 14
    assert not (tmp_path / "c_masks").exists()
    assert "vessel: 6.9% of an image" in capsys.readouterr().out  # 7.3 % in RETINA by the paper's Table 1


def test_livecell_becomes_semantic_masks(shared_data, tmp_path, capsys):
    folder = shared_data / "livecell"
    if not folder.is_dir():
        pytest.skip(f"no LIVECell samples: {folder} is missing")
    prepare.livecell(str(folder), str(tmp_path / "l.json"))
    content = json.loads((tmp_path / "l.json").read_text())
    assert len(items_of(content)) == 15
    assert content["near_duplicates"] == []
    assert "cell: 34.2% of an image" in capsys.readouterr().out


def test_the_lesions_of_ph2_are_read_where_they_are(shared_data, tmp_path):
    folder = shared_data / "ph2_sample"
    if not folder.is_dir():
        pytest.skip(f"no PH2 samples: {folder} is missing")
    prepare.ph2(str(folder), str(tmp_path / "p.json"))
    items = items_of(json.loads((tmp_path / "p.json").read_text()))
    assert len(items) == 6
    for item in items:
        name = item["group"]
        assert item["label"] == f"PH2Dataset/PH2 Dataset images/{name}/{name}_lesion/{name}_lesion.bmp"


def test_a_case_of_ph2_without_lesion_is_named(tmp_path):
    case = tmp_path / "ph2" / "PH2 Dataset images" / "IMD002" / "IMD002_Dermoscopic_Image"
    case.mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(case / "IMD002.bmp")
    with pytest.raises(ValueError, match=r"IMD002\.bmp: image without mask"):
        run(tmp_path / "ph2", "ph2", ratios=(0.6, 0.1, 0.3))
