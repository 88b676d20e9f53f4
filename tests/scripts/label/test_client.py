"""Questions to servers that are there, that are none, and that go away."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from clinbundles.scripts.label.client import ask, status

TOKEN = "0123456789abcdef"
INFO = {
    "models": {"polyps": {"version": "1.0", "type": "segmentation", "labels": {"polyp": 1}}},
    "datastore": {"completed": 1, "total": 3},
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/gone":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        is_allowed = self.headers["Authorization"] == f"Bearer {TOKEN}"
        text = "<html>" if self.path == "/page" else json.dumps(INFO if is_allowed else {"detail": "no such token."})
        self.send_response(200 if is_allowed else 401)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_status_names_the_models_and_counts_the_labels(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    status(url, token_file=str(tmp_path / "token"))
    assert capsys.readouterr().out == f"polyps 1.0: segmentation of polyp\n1 of 3 images are labelled: {url}\n"


def test_a_refusal_is_what_the_server_says(url: str) -> None:
    with pytest.raises(ValueError, match=r"/info/: no such token\."):
        ask(url, "/info/", token="another one")


def test_a_server_that_goes_away_is_called_so(url: str) -> None:
    with pytest.raises(ConnectionError, match="no server answers there"):
        ask(url, "/gone", token=TOKEN)


def test_a_port_where_nobody_listens_is_called_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionError, match=rf"http://127.0.0.1:{port}: no server answers there"):
        ask(f"http://127.0.0.1:{port}", "/info/")


def test_another_kind_of_page_and_of_address_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not that of MONAI Label"):
        ask(url, "/page", token=TOKEN)
    with pytest.raises(ValueError, match="no address of a server"):
        ask("localhost:8000", "/info/")
