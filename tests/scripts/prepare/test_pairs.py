import nibabel
import numpy as np
import pytest
from PIL import Image

from clinbundles.scripts.prepare.pairs import (
    Record,
    foreground_of,
    inspect,
    own_folder,
    pair_by_name,
    read_label_map,
    with_foreground,
)


def test_the_folder_of_the_set_is_found_from_above_and_from_inside(tmp_path):
    (tmp_path / "Set" / "images").mkdir(parents=True)
    assert own_folder(tmp_path, "Set", holds="images") == tmp_path / "Set"
    assert own_folder(tmp_path / "Set", "Set", holds="images") == tmp_path / "Set"
    assert own_folder(tmp_path / "no", "Set", holds="images") == tmp_path / "no"


def test_records_get_the_conversion_of_their_label_map_and_incomplete_ones_none(tmp_path):
    Image.fromarray(np.array([[0, 1, 5]], np.uint8)).save(tmp_path / "a.png")
    given = [Record(tmp_path / "i.png", tmp_path / "a.png", "a"), Record(tmp_path / "j.png", None, "j")]
    first, second = with_foreground(given, foreground={5})
    np.testing.assert_array_equal(first.convert(), [[0, 0, 1]])
    assert second == given[1]


def test_a_jpeg_mask_and_an_upper_case_suffix_find_their_image(tmp_path):
    for folder, name in (("images", "b.JPG"), ("images", "a.png"), ("masks", "a.jpg"), ("masks", "b.png")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).touch()
    (tmp_path / "images" / "Thumbs.db").touch()
    (tmp_path / "images" / "._a.png").touch()
    records = list(pair_by_name(tmp_path / "images", tmp_path / "masks"))
    assert [(r.image.name, r.label.name, r.group) for r in records] == [
        ("a.png", "a.jpg", "a"),
        ("b.JPG", "b.png", "b"),
    ]


def test_a_file_without_partner_is_a_record_that_says_so(tmp_path):
    for name in ("images/alone.jpg", "masks/stray_mask.png", "masks/odd.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    records = list(pair_by_name(tmp_path / "images", tmp_path / "masks", mask_ending="_mask"))
    assert [record.missing() for record in records] == [
        f"{tmp_path / 'images' / 'alone.jpg'}: image without mask.",
        f"{tmp_path / 'masks' / 'stray_mask.png'}: mask without image.",
        f"{tmp_path / 'masks' / 'odd.png'}: mask without image.",
    ]


def test_two_images_of_one_name_are_refused(tmp_path):
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"a\.jpg and a\.png differ only in their suffix"):
        list(pair_by_name(tmp_path, tmp_path))


def test_a_jpeg_mask_counts_from_half_of_white(tmp_path, picture):
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    for name, grey in (("faint.jpg", 100), ("marked.jpg", 200)):
        Image.new("L", (64, 48), grey).save(tmp_path / name)
    assert not inspect(Record(tmp_path / "a.png", tmp_path / "faint.jpg", "a")).has_foreground
    assert inspect(Record(tmp_path / "a.png", tmp_path / "marked.jpg", "a")).has_foreground


def test_the_source_hash_follows_both_files(tmp_path, picture):
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    hashes = set()
    for grey in (0, 255):
        Image.new("L", (64, 48), grey).save(tmp_path / "m.png")
        hashes.add(inspect(Record(tmp_path / "a.png", tmp_path / "m.png", "a")).sha256)
    Image.fromarray(picture(1)).save(tmp_path / "a.png")
    hashes.add(inspect(Record(tmp_path / "a.png", tmp_path / "m.png", "a")).sha256)
    assert len(hashes) == 3


def test_a_converted_mask_is_written_as_black_and_white_and_hashed_by_its_values(tmp_path, picture):
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    mask = np.zeros((48, 64), bool)
    mask[:12] = True
    record = Record(tmp_path / "a.png", tmp_path / "table.csv", "a", convert=lambda: mask)
    first = inspect(record, mask_file=tmp_path / "masks" / "deep" / "a.png")
    written = Image.open(first.label)
    assert written.mode == "L"
    np.testing.assert_array_equal(np.asarray(written), np.where(mask, 255, 0))
    assert first.foreground == 0.25
    assert sorted(p.name for p in first.label.parent.iterdir()) == ["a.png"]
    mask[12] = True
    assert inspect(record, mask_file=first.label).sha256 != first.sha256


def test_a_mask_that_looks_like_a_label_map_is_refused(tmp_path, picture):
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    Image.new("L", (64, 48), 100).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"m\.png: 3072 pixels of value 100"):
        inspect(Record(tmp_path / "a.png", tmp_path / "m.png", "a"))


def test_a_fault_of_the_layout_is_what_the_record_lacks(tmp_path):
    record = Record(tmp_path / "a.png", tmp_path / "list.json", "a", fault="list.json: a.png is not there.")
    assert record.missing() == "list.json: a.png is not there."
    with pytest.raises(ValueError, match=r"list\.json: a\.png is not there\."):
        inspect(record)


def test_names_pair_through_double_suffixes(tmp_path):
    for name in ("images/im1.ppm.gz", "labels/im1.ah.ppm.gz", "images/im2.nii.gz", "labels/im2.ah.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    records = pair_by_name(tmp_path / "images", tmp_path / "labels", mask_ending=".ah")
    assert [(r.image.name, r.label.name, r.group) for r in records] == [
        ("im1.ppm.gz", "im1.ah.ppm.gz", "im1"),
        ("im2.nii.gz", "im2.ah.gif", "im2"),
    ]


IDS = np.array([[0, 1, 2], [26, 31, 255]], dtype=np.uint8)


def save(path, values):
    Image.fromarray(values).save(path)
    return path


def test_ids_are_read_as_they_are_from_grey_palette_deep_and_equal_colour_images(tmp_path):
    palette = Image.new("P", (3, 2))
    palette.putdata(IDS.ravel().tolist())
    palette.putpalette(np.random.RandomState(0).randint(0, 256, 768).tolist())
    palette.save(tmp_path / "palette.png")
    save(tmp_path / "grey.png", IDS)
    save(tmp_path / "deep.png", IDS.astype(np.uint16))
    save(tmp_path / "colour.png", np.repeat(IDS[..., None], 3, axis=-1))
    nibabel.save(nibabel.Nifti1Image(IDS.T, np.eye(4)), tmp_path / "map.nii.gz")
    for name in ("palette.png", "grey.png", "deep.png", "colour.png", "map.nii.gz"):
        np.testing.assert_array_equal(read_label_map(tmp_path / name), IDS)


def test_a_picture_is_no_label_map(tmp_path):
    path = save(tmp_path / "a.png", np.random.RandomState(0).randint(0, 256, (4, 4, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"a\.png: uint8 of shape .* is no label map"):
        read_label_map(path)


def test_the_chosen_ids_are_foreground_and_no_other(tmp_path):
    path = save(tmp_path / "a.png", IDS)
    np.testing.assert_array_equal(foreground_of(path, foreground={2, 26}), [[0, 0, 1], [1, 0, 0]])


def test_an_id_outside_the_label_map_is_named_with_its_file(tmp_path):
    path = save(tmp_path / "a.png", IDS)
    assert foreground_of(path, foreground={1}, ids={0, 1, 2, 26, 31, 255}).sum() == 1
    with pytest.raises(ValueError, match=r"a\.png: label id 31 is not in the label map"):
        foreground_of(path, foreground={1}, ids={0, 1, 2, 26, 255})
