"""Zips whose bytes depend on what is in them alone."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

# The first date that a zip can hold.
DATE = (1980, 1, 1, 0, 0, 0)


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Zip files by name: sorted, of one date and mode, so that the same files give the same bytes.

    Args:
        files: contents by their paths in the zip, with "/" between parts.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever it is made
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    return stream.getvalue()
