"""Bundles and zips that are laid into the folder of a server."""

import shutil
from pathlib import Path

import pytest

from clinbundles.scripts.bundle import ROOT
from clinbundles.scripts.label.bundles import lay_out, link_code
from clinbundles.scripts.pack.run import pack

NAME = "covid_xray_transfer"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one packed bundle."""
    folder = tmp_path_factory.mktemp("dist")
    pack(NAME, out=str(folder))
    return folder


def test_a_zip_its_folder_and_what_it_unzips_to_are_served_with_their_own_code(dist: Path, tmp_path: Path) -> None:
    (zipped,) = lay_out([str(dist)], tmp_path)
    assert lay_out([str(next(dist.glob("*.zip")))], tmp_path) == [zipped]
    (again,) = lay_out([str(zipped)], tmp_path)
    assert again != zipped
    for place in (zipped, again):
        assert place.name == NAME
        assert list((place / "scripts").glob(f"{NAME}*/**/nets/weights.py"))


def test_a_bundle_of_the_checkout_is_copied_so_that_training_leaves_it_alone(tmp_path: Path) -> None:
    (place,) = lay_out([NAME], tmp_path)
    assert tmp_path in place.parents
    assert (place / "models" / "model.pt").read_bytes() == (ROOT / f"bundles/{NAME}/models/model.pt").read_bytes()
    (place / "models" / "trained.pt").write_bytes(b"trained here")
    assert lay_out([NAME], tmp_path) == [place]
    assert (place / "models" / "trained.pt").read_bytes() == b"trained here"


def test_another_release_begins_without_the_weights_trained_on_the_first(tmp_path: Path) -> None:
    bundle = tmp_path / NAME
    shutil.copytree(ROOT / "bundles" / NAME, bundle)
    (first,) = lay_out([str(bundle)], tmp_path)
    (bundle / "LICENSE").write_text("another")
    (second,) = lay_out([str(bundle)], tmp_path)
    assert first != second


def test_bundles_that_cannot_be_served_are_refused(dist: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.zip: no such file"):
        lay_out([str(tmp_path / "nothing.zip")], tmp_path)
    with pytest.raises(FileNotFoundError, match="'nothing' is no bundle"):
        lay_out(["nothing"], tmp_path)
    with pytest.raises(ValueError, match=f"{NAME} is given twice"):
        lay_out([NAME, str(dist)], tmp_path)
    bundle = tmp_path / "bare"
    shutil.copytree(ROOT / "bundles" / NAME / "configs", bundle / "configs")
    (bundle / "LICENSE").touch()
    with pytest.raises(FileNotFoundError, match=r"bare: has no weights models/model\.pt"):
        lay_out([str(bundle)], tmp_path)


def test_the_path_that_a_server_gets_holds_the_code_and_nothing_else(tmp_path: Path) -> None:
    folder = link_code(tmp_path)
    assert link_code(tmp_path) == folder  # a second time, too
    assert [path.name for path in folder.iterdir()] == ["clinbundles"]
    wings = {path.name: path.resolve() for path in (folder / "clinbundles").iterdir()}
    assert wings == {wing: (ROOT / wing).resolve() for wing in ("transforms", "nets", "engines", "scripts")}
