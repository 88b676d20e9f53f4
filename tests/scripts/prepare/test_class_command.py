import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from PIL import Image

from clinbundles.scripts.prepare.classes import Checked

SPLITS = ("training", "validation", "test")
COLUMNS = ("patientid", "finding", "view", "modality", "filename", "url")
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def prepare(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("prepare.class_command")


def write_x_ray(path: Path, seed: int) -> None:
    """Smooth random picture in grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.RandomState(seed).randint(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC).save(path)


def write_collections(root: Path, *, patients: int = 20) -> Path:
    """Both collections: of each class as many patients, of one image or two, and what must be left out."""
    seed = 0
    for k in range(patients):
        names = [f"NORMAL/IM-{k:04}-0001.jpeg", f"PNEUMONIA/person{k}_bacteria_{k}.jpeg"]
        names += [f"PNEUMONIA/person{k}_virus_{k}.jpeg"] if k < 10 else []
        names += [f"NORMAL/IM-{k:04}-0002.jpeg"] if k % 4 == 0 else []
        for name in names:
            seed += 1
            write_x_ray(root / "chest_xray" / ("test" if k % 5 == 0 else "train") / name, seed)
    rows = [(str(k), "Pneumonia/Viral/COVID-19", "PA", "X-ray", f"{k}.png", "https://www.a.org/1") for k in range(20)]
    rows += [(str(k), "COVID-19", "AP", "X-ray", f"again{k}.png", "https://b.org/2") for k in range(0, 20, 5)]
    rows += [
        ("30", "No Finding", "PA", "X-ray", "healthy.png", "https://a.org/3"),
        ("31", "Pneumonia/Bacterial/Streptococcus", "AP Supine", "X-ray", "bacterial.png", "https://a.org/4"),
        ("3", "No Finding", "PA", "X-ray", "recovered.png", "https://a.org/5"),
        ("40", "Pneumonia/Viral/COVID-19", "L", "X-ray", "lateral.png", ""),
        ("41", "Pneumonia/Viral/COVID-19", "Axial", "CT", "ct.png", ""),
        ("42", "todo", "PA", "X-ray", "todo.png", ""),
        ("43", "Pneumonia/Viral/SARS", "PA", "X-ray", "sars.png", ""),
        ("44", "Pneumonia/Viral/COVID-19", "PA", "X-ray", "missing.png", ""),
    ]
    folder = root / "covid-chestxray-dataset"
    for row in rows:
        seed += 1
        if row[4] != "missing.png":
            write_x_ray(folder / "images" / row[4], seed)
    with (folder / "metadata.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    return root


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be read only."""
    return write_collections(tmp_path_factory.mktemp("collections"))


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """A folder of ten images for each of two classes, two images a patient, named alike in both."""
    for k in range(20):
        write_x_ray(tmp_path / "data" / ("healthy", "ill")[k % 2] / f"{k // 4}_{k % 4 // 2}.png", k)
    return tmp_path / "data"


def run(command: Callable[..., None], root: Path, output: Path, **flags: Any) -> dict[str, Any]:
    command(str(root), str(output), **flags)
    return json.loads(output.read_text())


def groups(content: dict[str, Any], *splits: str) -> set[str]:
    return {item["group"] for split in splits for item in content[split]}


def labels(content: dict[str, Any], split: str) -> dict[int, int]:
    return dict(Counter(item["label"] for item in content[split]))


def test_both_data_sets_are_balanced_split_by_patient_and_free_of_leaks(
    prepare: ModuleType, collections: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content = run(prepare.covid_xray, collections, tmp_path / "list.json")
    assert sum(len(content[split]) for split in SPLITS) == 3 * 20  # 20 bacterial, the fewest
    total = Counter(item["label"] for split in SPLITS for item in content[split])
    assert total == {0: 20, 1: 20, 2: 20}
    assert not groups(content, "training") & groups(content, "validation", "test")
    assert not groups(content, "validation") & groups(content, "test")
    assert not groups(content, "pretraining", "pretraining_validation") & groups(content, "validation", "test")
    assert not groups(content, "pretraining") & groups(content, "pretraining_validation")
    for counts in content["leaks"].values():
        assert counts["test_images"] == len(content["test"])
        assert counts["seen_images"] == counts["images_of_seen_patients"] == 0
    assert content["labels"] == {"0": "normal", "1": "bacterial", "2": "covid19"}
    assert content["pretraining_labels"] == {"0": "normal", "1": "bacterial", "2": "viral"}
    assert set(labels(content, "pretraining")) == {0, 1, 2}
    said = capsys.readouterr().out
    assert f"pretraining -> test: 0 of {len(content['test'])} test images seen, 0 of patients seen" in said


def test_what_is_no_frontal_x_ray_of_a_class_is_nowhere(prepare: ModuleType, collections: Path, tmp_path: Path) -> None:
    text = json.dumps(run(prepare.covid_xray, collections, tmp_path / "list.json", balance="none"))
    assert not [name for name in ("lateral", "ct.png", "todo", "sars", "missing") if name in text]


def test_other_x_rays_of_the_covid_collection_are_kept_apart_without_its_covid_patients(
    prepare: ModuleType, collections: Path, tmp_path: Path
) -> None:
    content = run(prepare.covid_xray, collections, tmp_path / "list.json")
    assert [(Path(item["image"]).name, item["label"]) for item in content["same_source"]] == [
        ("bacterial.png", 1),
        ("healthy.png", 0),
    ]
    assert {item["source"] for item in content["same_source"]} == {"a.org"}
    by_class = {(item["label"], item["source"]) for split in SPLITS for item in content[split]}
    assert {source for label, source in by_class if label < 2} == {"Kermany et al."}
    assert {source for label, source in by_class if label == 2} == {"a.org", "b.org"}


def test_the_papers_protocol_splits_image_by_image_and_counts_what_leaks(
    prepare: ModuleType, collections: Path, tmp_path: Path
) -> None:
    content = run(prepare.covid_xray, collections, tmp_path / "list.json", paper_protocol=True)
    assert [labels(content, split) for split in SPLITS] == [dict.fromkeys(range(3), count) for count in (14, 2, 4)]
    of_kermany = {item["image"] for item in content["test"] if item["label"] < 2}
    seen = of_kermany & {item["image"] for item in content["pretraining"]}
    assert content["leaks"]["pretraining_to_test"]["seen_images"] == len(seen) > 0
    assert content["leaks"]["training_to_test"]["seen_images"] == 0
    trained = groups(content, "training")
    of_seen_patients = sum(item["group"] in trained for item in content["test"])
    assert content["leaks"]["training_to_test"]["images_of_seen_patients"] == of_seen_patients > 0
    assert len(content["pretraining"]) + len(content["pretraining_validation"]) == 20 + 5 + 20 + 10
    assert content["split"] == "image by image"


def test_monai_reads_every_split_and_every_file_is_there(
    prepare: ModuleType, collections: Path, tmp_path: Path
) -> None:
    content = run(prepare.covid_xray, collections, tmp_path / "list.json")
    for split in (*SPLITS, "pretraining", "pretraining_validation", "same_source"):
        items = load_decathlon_datalist(tmp_path / "list.json", False, split, collections)
        assert len(items) == len(content[split]) > 0
        assert all(Path(item["image"]).is_file() for item in items)
        assert {item["label"] for item in items} <= {0, 1, 2}


def test_the_seed_decides_and_the_same_seed_gives_the_same_file(
    prepare: ModuleType, collections: Path, tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare.covid_xray(str(collections), str(tmp_path / name), seed=seed)
    first, again, other = ((tmp_path / name).read_text() for name in "abc")
    assert first == again
    assert groups(json.loads(first), "test") != groups(json.loads(other), "test")


def test_balance_takes_numbers_all_or_as_many_as_the_rarest(
    prepare: ModuleType, collections: Path, tmp_path: Path
) -> None:
    def total(balance: Any) -> Counter:
        content = run(prepare.covid_xray, collections, tmp_path / "list.json", balance=balance)
        return Counter(item["label"] for split in SPLITS for item in content[split])

    assert total((15, 12, 11)) == {0: 15, 1: 12, 2: 11}
    assert total("none") == {0: 25, 1: 20, 2: 24}
    assert total("smallest") == {0: 20, 1: 20, 2: 20}


@pytest.mark.parametrize("balance", ["half", 10, (10, 10), (10, 10, 0), (10, 10, -1), (10, 10, 2.5), True])
def test_another_balance_is_refused(prepare: ModuleType, collections: Path, tmp_path: Path, balance: Any) -> None:
    message = rf"--balance is {re.escape(repr(balance))}: expected smallest, none or numbers of images for normal, bact"
    with pytest.raises(ValueError, match=message):
        prepare.covid_xray(str(collections), str(tmp_path / "list.json"), balance=balance)
    assert not (tmp_path / "list.json").exists()


def test_more_images_than_there_are_cannot_be_asked_for(prepare: ModuleType, collections: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="544 images of class normal asked for, there are 25"):
        prepare.covid_xray(str(collections), str(tmp_path / "list.json"), balance=(20, 20, 544)[::-1])


def test_a_copy_in_the_other_collection_takes_its_patient_along(prepare: ModuleType, tmp_path: Path) -> None:
    root = write_collections(tmp_path / "data")
    shutil.copy(
        root / "covid-chestxray-dataset" / "images" / "4.png", root / "covid-chestxray-dataset" / "images" / "17.png"
    )
    healthy = root / "chest_xray" / "train" / "NORMAL" / "IM-0001-0001.jpeg"
    with Image.open(healthy) as image:
        image.save(root / "covid-chestxray-dataset" / "images" / "healthy.png")
    content = run(prepare.covid_xray, root, tmp_path / "list.json", balance="none")
    names = [[Path(name).name for name in pair] for pair in content["copies"]]
    assert sorted(map(sorted, names)) == [["17.png", "4.png"], ["IM-0001-0001.jpeg", "healthy.png"]]
    where = {Path(item["image"]).name: (s, item["group"]) for s in SPLITS for item in content[s]}
    assert where["4.png"] == where["17.png"]
    assert [Path(item["image"]).name for item in content["same_source"]] == ["bacterial.png"]


def test_a_bad_file_stops_or_is_listed(prepare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = write_collections(tmp_path / "data")
    (root / "covid-chestxray-dataset" / "images" / "4.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"4\.png: not a readable image file"):
        prepare.covid_xray(str(root), str(tmp_path / "list.json"))
    content = run(prepare.covid_xray, root, tmp_path / "list.json", skip_bad=True)
    name = "covid-chestxray-dataset/images/4.png"
    assert [entry["file"] for entry in content["skipped"]] == [name]
    assert str(root) not in json.dumps(content)
    assert f"skipped {name}: {name}: not a readable" in capsys.readouterr().out


def test_a_collection_that_is_not_there_is_named(prepare: ModuleType, collections: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder chest_xray here"):
        prepare.covid_xray(str(collections / "covid-chestxray-dataset"), str(tmp_path / "list.json"))
    with pytest.raises(FileNotFoundError, match="no folder covid-chestxray-dataset here"):
        prepare.covid_xray(str(collections / "chest_xray"), str(tmp_path / "list.json"))


@pytest.mark.parametrize("command", ["covid_xray", "folder"])
def test_bad_flags_are_refused(prepare: ModuleType, collections: Path, tmp_path: Path, command: str) -> None:
    run_command, good = getattr(prepare, command), str(tmp_path / "list.json")
    with pytest.raises(FileNotFoundError, match=r"--dataset_dir .*absent: no such folder"):
        run_command(str(tmp_path / "absent"), good)
    for output in (tmp_path, tmp_path / "no" / "list.json"):
        with pytest.raises(ValueError, match=r"--output .*: expected a file in a folder that exists"):
            run_command(str(collections), str(output))
    for seed in (-1, 2**32, 1.5, "one", True):
        with pytest.raises(ValueError, match=r"--seed is .*: expected a whole number"):
            run_command(str(collections), good, seed=seed)


def test_a_folder_a_class_becomes_a_datalist(
    prepare: ModuleType, classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content = run(prepare.folder, classes, tmp_path / "list.json")
    assert content["labels"] == {"0": "healthy", "1": "ill"}
    assert [labels(content, split) for split in SPLITS] == [{0: 7, 1: 7}, {0: 1, 1: 1}, {0: 2, 1: 2}]
    assert all(item["image"].startswith(("healthy/", "ill/")[item["label"]]) for item in content["training"])
    assert len(groups(content, *SPLITS)) == 20  # every image is a patient of its own, whatever it is called
    assert "train with --class_names \"['healthy', 'ill']\"" in capsys.readouterr().out


def test_a_pattern_finds_the_patients_of_a_folder(prepare: ModuleType, classes: Path, tmp_path: Path) -> None:
    content = run(prepare.folder, classes, tmp_path / "list.json", patient_pattern=r"(\d+)_")
    assert groups(content, *SPLITS) == set("01234")
    assert not groups(content, "training") & groups(content, "validation", "test")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"p(\d+)_", r"healthy/0_0\.png: --patient_pattern 'p\(.*' finds no patient in this name"),
        (r"(x)?\d", "finds no patient in this name"),
        (r"\d+_", "--patient_pattern .*: expected a group in it"),
        (r"(\d+", "--patient_pattern .*: no regular expression"),
        (12, "--patient_pattern 12: expected a group in it"),
    ],
)
def test_a_pattern_that_finds_no_patient_is_refused(
    prepare: ModuleType, classes: Path, tmp_path: Path, pattern: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepare.folder(str(classes), str(tmp_path / "list.json"), patient_pattern=pattern)


def test_a_folder_of_one_class_is_refused_and_hidden_ones_are_none(
    prepare: ModuleType, classes: Path, tmp_path: Path
) -> None:
    write_x_ray(classes / ".thumbnails" / "1_0.png", 99)
    content = run(prepare.folder, classes, tmp_path / "list.json", balance=(9, 10))
    assert content["labels"] == {"0": "healthy", "1": "ill"}
    shutil.rmtree(classes / "ill")
    with pytest.raises(ValueError, match=r"--dataset_dir .*: expected a folder of images for each of two or more"):
        prepare.folder(str(classes), str(tmp_path / "list.json"))


def test_a_colour_photograph_needs_force(prepare: ModuleType, classes: Path, tmp_path: Path) -> None:
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 40, 3), dtype=np.uint8)).save(
        classes / "ill" / "x.png"
    )
    with pytest.raises(ValueError, match=r"x\.png: a colour image"):
        prepare.folder(str(classes), str(tmp_path / "list.json"))
    content = run(prepare.folder, classes, tmp_path / "list.json", force=True)
    assert sum(len(content[split]) for split in SPLITS) == 21


def test_too_few_patients_of_a_class_are_named(prepare: ModuleType, tmp_path: Path) -> None:
    for k in range(9):
        write_x_ray(tmp_path / "data" / ("a", "b", "b")[k % 3] / f"{k}.png", k)
    with pytest.raises(ValueError, match="class a has too few images or patients: validation gets none of it"):
        prepare.folder(str(tmp_path / "data"), str(tmp_path / "list.json"))


def test_the_command_line_takes_flags_and_puts_an_error_in_one_sentence(
    prepare: ModuleType, collections: Path, tmp_path: Path
) -> None:
    data = ["--dataset_dir", str(collections), "--output", str(tmp_path / "list.json")]
    prepare.main(["covid_xray", *data, "--balance", "20,15,14", "--paper_protocol", "--seed", "5"])
    content = json.loads((tmp_path / "list.json").read_text())
    assert content["seed"] == 5
    assert [labels(content, split)[0] for split in SPLITS] == [14, 2, 4]
    with pytest.raises(SystemExit, match=r"^prepare_classes: --balance is 3: expected smallest, none or numbers"):
        prepare.main(["covid_xray", *data, "--balance", "3"])
    with pytest.raises(SystemExit, match=r"^prepare_classes: .*absent: no such folder$"):
        prepare.main(["folder", "--dataset_dir", str(tmp_path / "absent"), "--output", str(tmp_path / "list.json")])


def test_the_shipped_datalist_is_what_the_command_writes(prepare: ModuleType, tmp_path: Path) -> None:
    samples = REPOSITORY / "bundles" / "covid_xray_transfer" / "samples"
    shipped = json.loads((samples / "datalist.json").read_text())
    assert run(prepare.covid_xray, samples, tmp_path / "again.json", seed=shipped["seed"]) == shipped
    assert groups(shipped, "test")
    assert not groups(shipped, "test") & groups(shipped, "training", "pretraining")


@pytest.fixture(scope="module")
def real(shared_data: Path, prepare: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, dict]:
    """Datalists of all images, by the paper's protocol or not; the images are checked only once."""
    for name in ("kermany", "covid_chestxray"):
        if not (shared_data / name).is_dir():
            pytest.skip(f"no chest X-rays: {shared_data / name} is missing")
    kept: list[Checked] = []
    check = prepare.check

    def check_once(images: Iterable, **options: Any) -> Checked:
        kept[:] = kept or [check(images, **options)]
        return kept[0]

    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "check", check_once)
        return {
            paper: run(prepare.covid_xray, shared_data, folder / f"{paper}.json", paper_protocol=paper)
            for paper in (False, True)
        }


def test_the_425_covid_19_x_rays_are_all_used_and_as_many_of_the_others(real: dict[bool, dict]) -> None:
    for content in real.values():
        total = Counter(item["label"] for split in SPLITS for item in content[split])
        assert total == {0: 425, 1: 425, 2: 425}
        assert labels(content, "test") == dict.fromkeys(range(3), 85)
        assert labels(content, "validation") == dict.fromkeys(range(3), 42)
        assert content["skipped"] == []


def test_no_patient_leaks_unless_the_papers_protocol_is_asked_for(real: dict[bool, dict]) -> None:
    for counts in real[False]["leaks"].values():
        assert counts == {"test_images": 255, "seen_images": 0, "images_of_seen_patients": 0}
    leaks = real[True]["leaks"]
    assert leaks["training_to_test"]["images_of_seen_patients"] > 50
    assert leaks["pretraining_to_test"]["seen_images"] == 170  # every normal or bacterial image of the test
