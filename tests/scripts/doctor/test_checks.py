import json
from pathlib import Path

import pytest

from clinbundles.scripts.doctor.checks import FAULT, check_files, check_metadata, read_json

ROOT = Path(__file__).parents[3]


def test_a_package_of_scripts_would_shadow_another_bundle(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "__init__.py").touch()
    sentences = [finding.sentence for finding in check_files(tmp_path)]
    assert any("scripts/__init__.py makes a second bundle" in sentence for sentence in sentences)
    assert any("no weights" in sentence for sentence in sentences)


def test_metadata_is_checked_for_what_hosts_read(tmp_path: Path) -> None:
    content = json.loads((ROOT / "bundles" / "ct_datasetgan" / "configs" / "metadata.json").read_text())
    (tmp_path / "configs").mkdir()
    path = tmp_path / "configs" / "metadata.json"
    path.write_text(json.dumps(content))
    assert list(check_metadata(tmp_path)) == []
    content["version"] = "9.9"
    content["network_data_format"]["outputs"]["result"] = content["network_data_format"]["outputs"].pop("pred")
    del content["task"]
    path.write_text(json.dumps(content))
    findings = list(check_metadata(tmp_path))
    assert [finding.status for finding in findings] == [FAULT] * 3
    assert "has no task" in findings[0].sentence
    assert "does not know version '9.9'" in findings[1].sentence
    assert "no output called 'pred'" in findings[2].sentence


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_what_is_no_json_object_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "metadata.json").write_text(text)
    with pytest.raises(ValueError, match=r"metadata.json"):
        read_json(tmp_path / "metadata.json")
