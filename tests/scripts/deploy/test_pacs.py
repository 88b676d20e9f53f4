"""Addresses of a PACS, and one that is not there; tests/hosts has a real one."""

import socket

import pytest

from clinbundles.scripts.deploy.pacs import Pacs


@pytest.mark.parametrize("url", ["127.0.0.1:8042", "ftp://127.0.0.1", "http://user:secret@127.0.0.1/dicom-web", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected http://HOST:PORT/PATH without a password"):
        Pacs(url)


def test_a_server_that_is_not_there_is_a_sentence() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ValueError, match=rf"http://127\.0\.0\.1:{port}/x: cannot be reached .*goes on later"):
        Pacs(f"http://127.0.0.1:{port}/x").read_study("1.2.3")
