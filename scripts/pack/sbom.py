"""What a packed bundle is made of: its packages for pip, and its bill of materials in CycloneDX."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any

NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # of addresses, RFC 9562


def packages_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Give the packages that a bundle needs, with the versions it was made with, by the name under which pip has them.

    Args:
        metadata: its metadata.json.
    """
    return {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
        **metadata["required_packages_version"],
    }


def requirements(metadata: Mapping[str, Any]) -> str:
    """Write what pip installs for a bundle, with any of its options, to run as it was made: a package a line."""
    packages = packages_of(metadata) | metadata.get("packages_of_options", {})
    return "".join(f"{name}=={version}\n" for name, version in packages.items())


def bill_of_materials(name: str, metadata: Mapping[str, Any], files: Mapping[str, bytes]) -> str:
    """List the packages that a bundle needs, with the versions it was made with, and its weights with their hashes.

    Args:
        name: of the bundle.
        metadata: its metadata.json.
        files: contents of the zip by path.

    Returns:
        CycloneDX 1.6 as JSON; the same input gives the same text.
    """
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentScope, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    optional = metadata.get("packages_of_options", {})
    components = [
        Component(name=package, version=version, type=ComponentType.LIBRARY, bom_ref=f"pypi:{package}",
                  purl=PackageURL("pypi", None, package, version),
                  scope=ComponentScope.OPTIONAL if package in optional else ComponentScope.REQUIRED)
        for package, version in (packages_of(metadata) | optional).items()
    ]  # fmt: skip
    components += [
        Component(name=path, type=ComponentType.MACHINE_LEARNING_MODEL, bom_ref=f"file:{path}",
                  hashes=[HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(content).hexdigest())])
        for path, content in files.items() if path.startswith("models/") and path.endswith((".pt", ".ts", ".onnx"))
    ]  # fmt: skip
    subject = Component(name=name, version=metadata["version"], type=ComponentType.APPLICATION, bom_ref=name)
    digest = hashlib.sha256(b"".join(hashlib.sha256(files[path]).digest() for path in sorted(files))).hexdigest()
    bom = Bom(
        components=components, metadata=BomMetaData(component=subject), serial_number=uuid.uuid5(NAMESPACE, digest)
    )
    bom.metadata.timestamp = None  # type: ignore[assignment]
    bom.register_dependency(subject, components)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"
