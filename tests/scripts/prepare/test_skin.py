import pytest
from PIL import Image

from clinbundles.scripts.prepare.datalist import items_of
from clinbundles.scripts.prepare.skin import ph2


def test_the_lesions_of_ph2_are_read_where_they_are(shared_data, run):
    folder = shared_data / "ph2_sample"
    if not folder.is_dir():
        pytest.skip(f"no PH2 samples: {folder} is missing")
    items = items_of(run(folder, "ph2"))
    assert len(items) == 6
    for item in items:
        name = item["group"]
        assert item["label"] == f"PH2Dataset/PH2 Dataset images/{name}/{name}_lesion/{name}_lesion.bmp"


def test_a_case_of_ph2_without_lesion_is_named(tmp_path, run):
    case = tmp_path / "ph2" / "PH2 Dataset images" / "IMD002" / "IMD002_Dermoscopic_Image"
    case.mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(case / "IMD002.bmp")
    with pytest.raises(ValueError, match=r"IMD002\.bmp: image without mask"):
        run(tmp_path / "ph2", "ph2", ratios=(0.6, 0.1, 0.3))


def test_a_case_of_ph2_without_any_file_is_counted(tmp_path, capsys):
    (tmp_path / "PH2 Dataset images" / "IMD002").mkdir(parents=True)
    assert list(ph2(tmp_path).records) == []
    assert "PH2: 1 cases are left out: neither image nor lesion, the first is IMD002" in capsys.readouterr().out
