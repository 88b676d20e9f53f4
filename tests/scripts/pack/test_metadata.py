import json
from pathlib import Path

import pytest

from clinbundles.scripts.pack.metadata import TEXTS, read_metadata

ROOT = Path(__file__).parents[3]
FILES = sorted(ROOT.glob("bundles/*/configs/metadata.json"))
PLAIN = {"version": "0.1.0", "monai_version": "1.6.1", "pytorch_version": "2.15.0", "numpy_version": "2.4.6"}
PLAIN |= {"required_packages_version": {"pillow": "13.0.0"}}


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.parents[1].name)
def test_every_bundle_has_what_a_zip_takes(file: Path) -> None:
    assert read_metadata(file.read_bytes(), "polyps", texts=TEXTS) == json.loads(file.read_text())


@pytest.mark.parametrize("version", ["1/../../../escaped", "a/b", "a\\b", "", " 1.0", "latest", None, 1, 1.0, ["1.0"]])
def test_what_is_no_version_is_named_with_its_file_and_entry(version: object) -> None:
    for entry in ("version", "numpy_version"):
        with pytest.raises(ValueError, match=rf"^polyps/configs/metadata\.json: {entry} is .+, expected a ver") as said:
            read_metadata(json.dumps(PLAIN | {entry: version}).encode(), "polyps")
        assert repr(version) in str(said.value)
    with pytest.raises(ValueError, match=r"required_packages_version of 'pillow' is .+, expected a version"):
        read_metadata(json.dumps(PLAIN | {"required_packages_version": {"pillow": version}}).encode(), "polyps")


@pytest.mark.parametrize("version", ["0.1.0", "1.0rc1", "0.1.0+mine", "2026.11", "1.0.post2"])
def test_a_version_is_taken(version: str) -> None:
    assert read_metadata(json.dumps(PLAIN | {"version": version}).encode(), "polyps")["version"] == version


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"version": "0.', "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "is list, expected an object"),
        (json.dumps({n: v for n, v in PLAIN.items() if n != "version"}).encode(), "version is None"),
        (json.dumps(PLAIN | {"required_packages_version": None}).encode(), "required_packages_version is None"),
        (json.dumps(PLAIN | {"required_packages_version": ["pillow"]}).encode(), r"packages_version is \['pil"),
        (json.dumps(PLAIN | {"packages_of_options": {"timm": None}}).encode(), "packages_of_options of 'timm' is None"),
        (json.dumps(PLAIN | {"name": ["polyps"]}).encode(), r"name is \['polyps'\], expected a text"),
    ],
)
def test_metadata_that_is_none_is_named(content: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"^polyps/configs/metadata\.json: .*{sentence}"):
        read_metadata(content, "polyps", texts=("name",))


def test_missing_metadata_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"polyps/configs/metadata\.json: no such file"):
        read_metadata(None, "polyps")
