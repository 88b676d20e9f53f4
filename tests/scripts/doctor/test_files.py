import json
from pathlib import Path

import pytest

from clinbundles.scripts.doctor.files import exported_networks, files_of, strange_links


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, found through a link to it, beside another one."""
    (tmp_path / "real" / "models").mkdir(parents=True)
    (tmp_path / "real" / "models" / "model.pt").write_text("weights")
    (tmp_path / "other" / "scripts").mkdir(parents=True)
    (tmp_path / "other" / "scripts" / "code.py").write_text("1")
    (tmp_path / "bundle").symlink_to(tmp_path / "real")
    return tmp_path / "bundle"


def test_links_to_folders_and_out_of_the_bundle_are_told_and_no_others(folder: Path) -> None:
    (folder / "models" / "same.pt").symlink_to("model.pt")
    assert list(strange_links(folder)) == []
    (folder / "scripts").symlink_to(folder.parent / "other" / "scripts")
    (folder / "weights").symlink_to("models")
    (folder / "models" / "code.py").symlink_to(folder.parent / "other" / "scripts" / "code.py")
    (folder / "gone").symlink_to(folder.parent / "absent")
    (folder / "circle").symlink_to("circle")
    assert list(strange_links(folder)) == [
        "gone is a link out of the bundle",
        "models/code.py is a link out of the bundle",
        "scripts is a link to a folder",
        "weights is a link to a folder",
    ]


def test_files_behind_a_link_to_a_folder_are_not_listed(folder: Path) -> None:
    (folder / "scripts").symlink_to(folder.parent / "other" / "scripts")
    assert files_of(folder) == [folder / "models" / "model.pt"]


def test_what_configs_load_as_torchscript_is_found_in_what_lies_over_another_too(folder: Path) -> None:
    (folder / "configs").mkdir()
    parts = {"network_def": {"filename_prefix_or_stream": "@ckpt_path"}}
    for name, path, more in (("inference", "model.ts", parts), ("other", "net.bin", {"extends": ["inference.json"]})):
        content = more | {"ckpt_path": f"$@bundle_root + '/models/{path}'"}
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content))
    (folder / "configs" / "train.json").write_text(json.dumps({"ckpt_path": "$@bundle_root + '/models/model.pt'"}))
    assert sorted(exported_networks(folder)) == [folder / "models" / "model.ts", folder / "models" / "net.bin"]


@pytest.mark.parametrize("place", ["/mnt/a.ts", "$@bundle_root + '/../a.ts'", "@other", None])
def test_a_config_that_loads_from_elsewhere_is_refused(place: str | None, folder: Path) -> None:
    (folder / "configs").mkdir()
    content = {"network_def": {"filename_prefix_or_stream": place}}
    (folder / "configs" / "inference.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"configs/inference\.json would load .*, which is no file of the bundle"):
        list(exported_networks(folder))
