import hashlib
import json

from clinbundles.scripts.pack.sbom import bill_of_materials, requirements

METADATA = {
    "version": "1.2.3",
    "monai_version": "1.6.1",
    "pytorch_version": "2.15.0",
    "numpy_version": "2.4.6",
    "required_packages_version": {"pydicom": "3.0.2"},
    "packages_of_options": {"timm": "1.0.31"},
}
FILES = {"models/model.pt": b"weights", "configs/train.json": b"{}"}


def test_packages_and_weights_are_listed_and_nothing_changes_from_call_to_call() -> None:
    text = bill_of_materials("polyps", METADATA, FILES)
    bill = json.loads(text)
    assert (bill["bomFormat"], bill["metadata"]["component"]["version"]) == ("CycloneDX", "1.2.3")
    purls = {component.get("purl") for component in bill["components"]}
    assert {"pkg:pypi/monai@1.6.1", "pkg:pypi/torch@2.15.0", "pkg:pypi/pydicom@3.0.2"} <= purls
    optional = [component["name"] for component in bill["components"] if component.get("scope") == "optional"]
    assert optional == ["timm"]
    (weights,) = [c for c in bill["components"] if c["type"] == "machine-learning-model"]
    assert weights["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(b"weights").hexdigest()}]
    assert bill_of_materials("polyps", METADATA, FILES) == text
    assert bill_of_materials("polyps", METADATA, FILES | {"configs/train.json": b"[]"}) != text


def test_requirements_have_a_package_a_line_with_the_version_that_the_bundle_was_made_with() -> None:
    assert requirements(METADATA) == "monai==1.6.1\ntorch==2.15.0\nnumpy==2.4.6\npydicom==3.0.2\ntimm==1.0.31\n"
