import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from monai.data import load_decathlon_datalist
from PIL import Image

from clinbundles.scripts import cli
from clinbundles.scripts.prepare import classes
from clinbundles.scripts.prepare.classes import Inspection
from clinbundles.scripts.prepare.command import prepare
from clinbundles.scripts.prepare.datalist import SPLITS

Run = Callable[..., dict[str, Any]]

COLUMNS = ("patientid", "finding", "view", "modality", "filename", "url")
REPOSITORY = Path(__file__).parents[3]


def write_collections(root: Path, write_x_ray: Callable[..., Path], *, patients: int = 20) -> Path:
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
def collections(tmp_path_factory: pytest.TempPathFactory, write_x_ray: Callable[..., Path]) -> Path:
    """To be read only."""
    return write_collections(tmp_path_factory.mktemp("collections"), write_x_ray)


def groups(content: dict[str, Any], *splits: str) -> set[str]:
    return {item["group"] for split in splits for item in content[split]}


def labels(content: dict[str, Any], split: str) -> dict[int, int]:
    return dict(Counter(item["label"] for item in content[split]))


def test_both_data_sets_are_balanced_split_by_patient_and_free_of_leaks(
    collections: Path, capsys: pytest.CaptureFixture, run: Run
) -> None:
    content = run(collections, "covid_xray")
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
    assert "Cohen et al.: 27 of 32 rows; left out: 2 no frontal X-ray, 2 other or no finding, 1 without file" in said
    assert "82 images came in, 73 are used, 0 are left out as bad, 9 are not drawn" in said
    assert f"pretraining -> test: 0 of {len(content['test'])} test images seen, 0 of patients seen" in said


def test_what_is_no_frontal_x_ray_of_a_class_is_nowhere(collections: Path, run: Run) -> None:
    text = json.dumps(run(collections, "covid_xray", balance="none"))
    assert not [name for name in ("lateral", "ct.png", "todo", "sars", "missing") if name in text]


def test_other_x_rays_of_the_covid_collection_are_kept_apart_without_its_covid_patients(
    collections: Path, run: Run
) -> None:
    content = run(collections, "covid_xray")
    assert [(Path(item["image"]).name, item["label"]) for item in content["same_source"]] == [
        ("bacterial.png", 1),
        ("healthy.png", 0),
    ]
    assert {item["source"] for item in content["same_source"]} == {"a.org"}
    by_class = {(item["label"], item["source"]) for split in SPLITS for item in content[split]}
    assert {source for label, source in by_class if label < 2} == {"Kermany et al."}
    assert {source for label, source in by_class if label == 2} == {"a.org", "b.org"}


def test_the_papers_protocol_splits_image_by_image_and_counts_what_leaks(collections: Path, run: Run) -> None:
    content = run(collections, "covid_xray", paper_protocol=True)
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


def test_monai_reads_every_split_and_every_file_is_there(collections: Path, tmp_path: Path, run: Run) -> None:
    content = run(collections, "covid_xray")
    for split in (*SPLITS, "pretraining", "pretraining_validation", "same_source"):
        items = load_decathlon_datalist(tmp_path / "datalist.json", False, split, collections)
        assert len(items) == len(content[split]) > 0
        assert all(Path(item["image"]).is_file() for item in items)
        assert {item["label"] for item in items} <= {0, 1, 2}


def test_the_seed_decides_and_the_same_seed_gives_the_same_file(collections: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare("covid_xray", str(collections), str(tmp_path / name), seed=seed)
    first, again, other = ((tmp_path / name).read_text() for name in "abc")
    assert first == again
    assert groups(json.loads(first), "test") != groups(json.loads(other), "test")


def test_balance_takes_numbers_all_or_as_many_as_the_rarest(collections: Path, run: Run) -> None:
    def total(balance: Any) -> Counter:
        content = run(collections, "covid_xray", balance=balance)
        return Counter(item["label"] for split in SPLITS for item in content[split])

    assert total((15, 12, 11)) == {0: 15, 1: 12, 2: 11}
    assert total("none") == {0: 25, 1: 20, 2: 24}
    assert total("smallest") == {0: 20, 1: 20, 2: 20}


@pytest.mark.parametrize("balance", ["half", 10, (10, 10), (10, 10, 0), (10, 10, -1), (10, 10, 2.5), True])
def test_another_balance_is_refused(collections: Path, tmp_path: Path, balance: Any, run: Run) -> None:
    message = rf"--balance is {re.escape(repr(balance))}: expected smallest, none or numbers of images for normal, bact"
    with pytest.raises(ValueError, match=message):
        run(collections, "covid_xray", balance=balance)
    assert not (tmp_path / "datalist.json").exists()


def test_more_images_than_there_are_cannot_be_asked_for(collections: Path, run: Run) -> None:
    with pytest.raises(ValueError, match="544 images of class normal asked for, there are 25"):
        run(collections, "covid_xray", balance=(20, 20, 544)[::-1])


def test_a_copy_in_the_other_collection_takes_its_patient_along(
    tmp_path: Path, run: Run, write_x_ray: Callable[..., Path]
) -> None:
    root = write_collections(tmp_path / "data", write_x_ray)
    shutil.copy(
        root / "covid-chestxray-dataset" / "images" / "4.png", root / "covid-chestxray-dataset" / "images" / "17.png"
    )
    healthy = root / "chest_xray" / "train" / "NORMAL" / "IM-0001-0001.jpeg"
    with Image.open(healthy) as image:
        image.save(root / "covid-chestxray-dataset" / "images" / "healthy.png")
    content = run(root, "covid_xray", balance="none")
    names = [[Path(name).name for name in pair] for pair in content["copies"]]
    assert sorted(map(sorted, names)) == [["17.png", "4.png"], ["IM-0001-0001.jpeg", "healthy.png"]]
    where = {Path(item["image"]).name: (s, item["group"]) for s in SPLITS for item in content[s]}
    assert where["4.png"] == where["17.png"]
    assert [Path(item["image"]).name for item in content["same_source"]] == ["bacterial.png"]


def test_a_bad_file_stops_or_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture, run: Run, write_x_ray: Callable[..., Path]
) -> None:
    root = write_collections(tmp_path / "data", write_x_ray)
    (root / "covid-chestxray-dataset" / "images" / "4.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"4\.png: not a readable image file"):
        run(root, "covid_xray")
    content = run(root, "covid_xray", skip_bad=True)
    name = "covid-chestxray-dataset/images/4.png"
    assert [entry["file"] for entry in content["skipped"]] == [name]
    assert str(root) not in json.dumps(content)
    assert f"skipped {name}: {name}: not a readable" in capsys.readouterr().out


def test_a_collection_that_is_not_there_is_named(collections: Path, run: Run) -> None:
    with pytest.raises(FileNotFoundError, match="no folder chest_xray here"):
        run(collections / "covid-chestxray-dataset", "covid_xray")
    with pytest.raises(FileNotFoundError, match="no folder covid-chestxray-dataset here"):
        run(collections / "chest_xray", "covid_xray")


def test_the_command_line_takes_a_number_for_each_class(collections: Path, tmp_path: Path) -> None:
    words = ["prepare", "covid_xray", "--dataset_dir", str(collections), "--output", str(tmp_path / "list.json")]
    cli.main([*words, "--balance", "20,15,14", "--paper_protocol", "--seed", "5"])
    content = json.loads((tmp_path / "list.json").read_text())
    assert content["seed"] == 5
    assert [labels(content, split)[0] for split in SPLITS] == [14, 2, 4]
    cli.main([*words, "--balance", "none"])
    everything = json.loads((tmp_path / "list.json").read_text())
    assert sum(labels(everything, split)[0] for split in SPLITS) > 20
    with pytest.raises(SystemExit, match=r"^clinbundles prepare: --balance is 3: expected smallest, none or numbers"):
        cli.main([*words, "--balance", "3"])


def test_the_shipped_datalist_is_what_the_command_writes(run: Run) -> None:
    samples = REPOSITORY / "bundles" / "covid_xray_transfer" / "samples"
    shipped = json.loads((samples / "datalist.json").read_text())
    assert run(samples, "covid_xray", seed=shipped["seed"]) == shipped
    assert groups(shipped, "test")
    assert not groups(shipped, "test") & groups(shipped, "training", "pretraining")


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, dict]:
    """Datalists of all images, by the paper's protocol or not; the images are checked only once."""
    for name in ("kermany", "covid_chestxray"):
        if not (shared_data / name).is_dir():
            pytest.skip(f"no chest X-rays: {shared_data / name} is missing")
    results: list[Inspection] = []
    check = classes.check

    def check_once(images: Iterable, **options: Any) -> Inspection:
        results[:] = results or [check(images, **options)]
        return results[0]

    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classes, "check", check_once)
        for paper in (False, True):
            prepare("covid_xray", str(shared_data), str(folder / f"{paper}.json"), paper_protocol=paper)
    return {paper: json.loads((folder / f"{paper}.json").read_text()) for paper in (False, True)}


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


def test_the_splits_behind_the_published_results_are_drawn_as_ever(
    real: dict[bool, dict], drawn: Callable[..., str]
) -> None:
    assert {content["data_sha256"][:16] for content in real.values()} == {"5aa24b0166dce85f"}
    assert {paper: drawn(content) for paper, content in real.items()} == {
        False: "5374863cca415308",
        True: "d5f939cc112986d8",
    }
