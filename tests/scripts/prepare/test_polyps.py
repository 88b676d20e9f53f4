import json

import numpy as np
import pytest
from PIL import Image

from clinbundles.scripts.prepare.datalist import SPLITS, items_of
from clinbundles.scripts.prepare.polyps import polypgen_group


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
    assert polypgen_group(stem, centre=centre) == group


def test_the_shipped_datalist_is_what_the_command_writes(polyp_samples, run):
    again = run(polyp_samples, "polypgen", ratios=(20, 6, 6), seed=2)
    shipped = json.loads((polyp_samples / "datalist.json").read_text())
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


def test_a_datalist_of_polypgen_names_the_centre_of_each_frame(polyp_samples, run):
    items = list(items_of(run(polyp_samples, "polypgen")))
    assert {item["source"] for item in items} == {"C1", "C2", "C4"}
    assert all(f"/data_{item['source']}/" in item["image"] for item in items)


def test_the_samples_are_small_attributed_and_carry_no_metadata(polyp_samples):
    assert sum(path.stat().st_size for path in polyp_samples.rglob("*") if path.is_file()) < 1.5e6
    readme = (polyp_samples / "README.md").read_text()
    assert all(text in readme for text in ("CC BY 4.0", "10.1038/s41597-023-01981-y", "downscaled"))
    images = sorted(polyp_samples.rglob("*.jpg"))
    assert len(images) == 32
    for path in images:
        with Image.open(path) as image:
            assert not image.getexif()


def test_kvasir_splits_600_200_200_and_has_four_near_duplicate_pairs(shared_data, run, drawn):
    folder = shared_data / "kvasir_seg"
    if not folder.is_dir():
        pytest.skip(f"no Kvasir-SEG: {folder} is missing")
    content = run(folder / "Kvasir-SEG", "kvasir_seg")
    assert [len(content[s]) for s in SPLITS] == [600, 200, 200]
    assert len(content["near_duplicates"]) == 4
    assert content["data_sha256"].startswith("418e4f4cbc513955")
    assert drawn(content) == "bd6ebf53deb6acdb"  # the split behind the published results
    where = {item["image"]: split for split in SPLITS for item in content[split]}
    assert len(where) == 1000
    assert all(where[first] == where[second] for first, second in content["near_duplicates"])


def test_kvasir_has_an_official_split_that_no_near_duplicate_crosses(shared_data, capsys, run):
    folder = shared_data / "kvasir_seg"
    if not folder.is_dir():
        pytest.skip(f"no Kvasir-SEG: {folder} is missing")
    content = run(folder, "kvasir_seg", split="official")
    assert [content[f"num{s.capitalize()}"] for s in SPLITS] == [880, 120, 0]
    assert content["training"][0]["image"].startswith("Kvasir-SEG/images/")
    assert "warning" not in capsys.readouterr().out


def test_the_frames_of_a_polypgen_sequence_stay_together(shared_data, run):
    folder = shared_data / "polypgen_sample"
    if not folder.is_dir():
        pytest.skip(f"no PolypGen frames: {folder} is missing")
    content = run(folder, "polypgen")
    assert [len(content[s]) for s in SPLITS] == [36, 12, 12]
    assert content["near_duplicates"] == []
    for group in ("C1_176OLCV1", "C4_14", "C4_22", "C4_23"):
        assert len({s for s in SPLITS for i in content[s] if i["group"] == group}) == 1
