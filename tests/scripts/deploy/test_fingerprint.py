"""A result of other weights, configs or code has another UID, whatever the paths are."""

import shutil
from pathlib import Path

import pytest

from clinbundles.scripts.bundle import ROOT
from clinbundles.scripts.deploy.fingerprint import by_content, weights_of
from clinbundles.scripts.deploy.inference import opened

XRAYS = ROOT / "bundles" / "covid_xray_transfer"


def test_other_weights_at_the_same_path_give_another_digest(tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    options = {"ckpt_path": str(weights)}
    digests = []
    with opened(str(XRAYS)) as bundle:
        for content in (b"one", b"another", b"one"):
            weights.write_bytes(content)
            digests.append(bundle.with_options(options).digest)
        weights.unlink()
        with pytest.raises(FileNotFoundError, match=r"--ckpt_path .*w\.pt: no such file"):
            bundle.with_options(options)
        assert weights_of(bundle.folder, {}) == bundle.folder / "models" / "model.pt"
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.parametrize("changed", ["models/model.pt", "configs/metadata.json", "p_0123abcd/nets/a.py", "p_01/b.py"])
def test_each_part_of_a_packed_bundle_counts(changed: str, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(XRAYS / "configs", folder / "configs")
    for name in ("models/model.pt", "p_0123abcd/nets/a.py"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"#")
    with opened(str(folder)) as bundle:
        before = bundle.digest
    (folder / changed).parent.mkdir(exist_ok=True)
    with (folder / changed).open("ab") as file:
        file.write(b"\n")
    with opened(str(folder)) as bundle:
        assert bundle.digest != before


def test_a_file_in_a_list_or_dictionary_counts_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("a")
    before = by_content({"a": [str(file), 1, "x" * 5000, "no\0path"]})
    file.write_text("b")
    assert by_content({"a": [str(file), 1, "x" * 5000, "no\0path"]}) != before
