import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from clinbundles.scripts.prepare.chest_xrays import KERMANY, class_of_finding, cohen, find_folder, kermany

ROW = {
    "patientid": "1",
    "finding": "Pneumonia/Viral/COVID-19",
    "view": "PA",
    "modality": "X-ray",
    "filename": "a.jpg",
    "url": "https://www.eurorad.org/case/16663",
    "license": "",
}


def write_kermany(root: Path, *names: str) -> Path:
    for name in names:
        path = root / "chest_xray" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def write_cohen(root: Path, rows: list[dict[str, Any]], *, missing: tuple[str, ...] = ()) -> Path:
    folder = root / "covid-chestxray-dataset"
    (folder / "images").mkdir(parents=True)
    rows = [{**ROW, "filename": f"{k}.jpg", "patientid": str(k)} | row for k, row in enumerate(rows)]
    for row in rows:
        if row["filename"] not in missing:
            (folder / "images" / row["filename"]).touch()
    with (folder / "metadata.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(ROW))
        writer.writeheader()
        writer.writerows(rows)
    return root


def test_a_childs_x_ray_tells_patient_and_kind_by_its_name(tmp_path: Path) -> None:
    write_kermany(
        tmp_path,
        "train/NORMAL/IM-0115-0001.jpeg",
        "train/NORMAL/IM-0115-0001-0002.jpeg",
        "train/NORMAL/NORMAL2-IM-0115-0001.jpeg",
        "test/PNEUMONIA/person7_bacteria_24.jpeg",
        "train/PNEUMONIA/person7_virus_6.jpeg",
    )
    found = {image.image.name: (image.class_name, image.group, image.source) for image in kermany(tmp_path)}
    assert found == {
        "IM-0115-0001.jpeg": ("normal", "kermany-IM-0115", KERMANY),
        "IM-0115-0001-0002.jpeg": ("normal", "kermany-IM-0115", KERMANY),
        "NORMAL2-IM-0115-0001.jpeg": ("normal", "kermany-NORMAL2-IM-0115", KERMANY),
        "person7_bacteria_24.jpeg": ("bacterial", "kermany-person7", KERMANY),
        "person7_virus_6.jpeg": ("viral", "kermany-person7", KERMANY),
    }


def test_the_val_folder_and_what_is_no_image_are_left_out(tmp_path: Path) -> None:
    write_kermany(
        tmp_path,
        "train/NORMAL/IM-0001-0001.jpeg",
        "train/NORMAL/.DS_Store",
        "train/NORMAL/._IM-0001-0001.jpeg",
        "train/NORMAL/Thumbs.db",
        "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
    )
    assert [image.image.name for image in kermany(tmp_path)] == ["IM-0001-0001.jpeg"]


@pytest.mark.parametrize(
    "name", ["train/NORMAL/person1_bacteria_1.jpeg", "train/PNEUMONIA/IM-0001-0001.jpeg", "train/PNEUMONIA/scan.jpeg"]
)
def test_a_name_that_does_not_tell_is_a_fault(tmp_path: Path, name: str) -> None:
    write_kermany(tmp_path, "train/NORMAL/IM-0001-0001.jpeg", name)
    faults = {image.image.name: image.fault for image in kermany(tmp_path)}
    assert faults.pop(Path(name).name).startswith(f"{tmp_path / 'chest_xray' / name}: expected a name like ")
    assert not any(faults.values())


def test_names_of_the_newer_release_tell_kind_and_patient_too(tmp_path: Path) -> None:
    names = {
        "train/NORMAL/NORMAL-1049278-0001.jpeg": ("normal", "kermany-1049278"),
        "train/PNEUMONIA/BACTERIA-7422-0001.jpeg": ("bacterial", "kermany-7422"),
        "train/PNEUMONIA/BACTERIA-7422-0002.jpeg": ("bacterial", "kermany-7422"),
        "test/PNEUMONIA/VIRUS-9815549-0001.jpeg": ("viral", "kermany-9815549"),
    }
    write_kermany(tmp_path, *names)
    found = {image.image: (image.class_name, image.group) for image in kermany(tmp_path)}
    assert found == {tmp_path / "chest_xray" / name: facts for name, facts in names.items()}


def test_folders_are_found_where_they_are_or_up_to_two_below(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "kermany" / "chest_xray"
    write_kermany(folder.parent, "train/NORMAL/IM-0001-0001.jpeg")
    for root in (folder, folder.parent, folder.parent.parent):
        assert [image.image for image in kermany(root)] == [folder / "train" / "NORMAL" / "IM-0001-0001.jpeg"]
    with pytest.raises(FileNotFoundError, match="no folder chest_xray here or one folder below, with train/NORMAL"):
        kermany(tmp_path)


def test_of_several_folders_the_first_by_name_is_taken(tmp_path: Path) -> None:
    for name in ("c", "a", "b"):
        write_kermany(tmp_path / name, "train/NORMAL/IM-0001-0001.jpeg")
    assert find_folder(tmp_path, "chest_xray", holds="train") == tmp_path / "a" / "chest_xray"


def test_frontal_x_rays_of_three_findings_are_taken(tmp_path: Path) -> None:
    rows = [
        {"finding": "Pneumonia/Viral/COVID-19", "view": "PA"},
        {"finding": "COVID-19, ARDS", "view": "AP Supine"},
        {"finding": "Pneumonia/Bacterial/Streptococcus", "view": "AP"},
        {"finding": "No Finding", "view": "AP Erect"},
    ]
    images = cohen(write_cohen(tmp_path, rows))
    assert [image.class_name for image in images] == ["covid19", "covid19", "bacterial", "normal"]
    assert [image.group for image in images] == ["cohen-0", "cohen-1", "cohen-2", "cohen-3"]


@pytest.mark.parametrize(
    "row",
    [
        {"view": "L"},
        {"view": "Axial", "modality": "CT"},
        {"view": "Coronal", "modality": "CT"},
        {"modality": "CT"},
        {"view": ""},
        {"finding": "todo"},
        {"finding": "Unknown"},
        {"finding": "Tuberculosis"},
        {"finding": "Pneumonia/Viral/SARS"},
        {"finding": "Pneumonia"},
        {"finding": ""},
    ],
)
def test_other_views_kinds_and_findings_are_left_out(tmp_path: Path, row: dict[str, str]) -> None:
    assert [image.image.name for image in cohen(write_cohen(tmp_path, [{}, row]))] == ["0.jpg"]


def test_rows_without_a_patient_are_left_out_and_a_table_without_any_is_refused(tmp_path: Path, capsys: Any) -> None:
    root = write_cohen(tmp_path / "some", [{}, {"patientid": " "}])
    assert [image.image.name for image in cohen(root)] == ["0.jpg"]
    assert "1 of 2 rows; left out: 1 without patientid" in capsys.readouterr().out
    root = write_cohen(tmp_path / "all", [{"patientid": ""}, {"patientid": " "}])
    with pytest.raises(ValueError, match=r"metadata\.csv: column patientid is empty in all 2 rows"):
        cohen(root)


def test_blanks_around_a_patients_number_make_no_other_patient(tmp_path: Path) -> None:
    rows = [{"patientid": text} for text in ("12", " 12", "12 ")]
    assert {image.group for image in cohen(write_cohen(tmp_path, rows))} == {"cohen-12"}


def test_missing_and_repeated_files_are_left_out(tmp_path: Path) -> None:
    rows = [{}, {}, {"filename": "0.jpg", "finding": "No Finding"}]
    images = cohen(write_cohen(tmp_path, rows, missing=("1.jpg",)))
    assert [image.image.name for image in images] == ["0.jpg"]


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("https://www.eurorad.org/case/16663", "eurorad.org"),
        ("https://radiopaedia.org/cases/covid-19", "radiopaedia.org"),
        ("", "unknown"),
        ("no address", "unknown"),
        ("https://[half/an/address", "unknown"),
    ],
)
def test_the_source_is_the_host_of_the_page(tmp_path: Path, url: str, source: str) -> None:
    assert [image.source for image in cohen(write_cohen(tmp_path, [{"url": url}]))] == [source]


def test_a_table_without_a_column_or_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("patientid,finding,modality,filename,url\n")
    with pytest.raises(ValueError, match=r"metadata\.csv: has no column view\."):
        cohen(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no folder covid-chestxray-dataset here .* metadata\.csv in it"):
        cohen(tmp_path)


@pytest.mark.parametrize(
    ("finding", "class_name"),
    [
        ("COVID-19", "covid19"),
        ("COVID-19, ARDS", "covid19"),
        ("Pneumonia/Viral/COVID-19", "covid19"),
        ("Streptococcus", "bacterial"),
        ("Pneumonia/Bacterial", "bacterial"),
        ("Pneumonia/Bacterial/Staphylococcus/MRSA", "bacterial"),
        ("Pneumonia/Bacterial/E.Coli", "bacterial"),
        ("Mycoplasma Bacterial Pneumonia", "bacterial"),
        ("Klebsiella", "bacterial"),
        ("No Finding", "normal"),
        ("Pneumonia/Fungal/Pneumocystis", None),
        ("Pneumonia/Aspiration", None),
        ("SARS", None),
        ("todo", None),
    ],
)
def test_findings_of_both_releases_become_classes(finding: str, class_name: str | None) -> None:
    assert class_of_finding(finding) == class_name


def test_the_collection_has_425_frontal_x_rays_of_covid_19(shared_data: Path) -> None:
    folder = shared_data / "covid_chestxray"
    if not folder.is_dir():
        pytest.skip(f"no images of Cohen et al.: {folder} is missing")
    images = cohen(folder)
    assert Counter(image.class_name for image in images)["covid19"] == 425
    assert len({image.image for image in images}) == len(images)
    assert all("/" not in image.source and image.source for image in images)


def test_the_childrens_x_rays_are_counted_by_kind(shared_data: Path) -> None:
    folder = shared_data / "kermany"
    if not folder.is_dir():
        pytest.skip(f"no images of Kermany et al.: {folder} is missing")
    images = kermany(folder)
    assert Counter(image.class_name for image in images) == {"normal": 619, "bacterial": 600, "viral": 300}
    kinds: dict[str, set[str]] = {}
    for image in images:
        kinds.setdefault(image.group, set()).add(image.class_name)
    assert sum(len(names) == 2 for names in kinds.values()) == 91  # children with both kinds of pneumonia
