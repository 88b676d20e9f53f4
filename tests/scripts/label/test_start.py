"""What a server is started with, and what keeps it from being started."""

import socket
import sys
import time
from pathlib import Path

import pytest

from clinbundles.scripts.label.guard import TOKEN_VARIABLE
from clinbundles.scripts.label.start import _serve, check_access, is_loopback, settings_of, start


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_alone_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    check_access(host, token_file=None, auth_realm=None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "ward.example"])
def test_other_machines_need_a_token_or_a_realm(host: str) -> None:
    with pytest.raises(ValueError, match=r"others could read the images .* give --token_file, or --auth_realm"):
        check_access(host, token_file=None, auth_realm=None)
    check_access(host, token_file="token", auth_realm=None)
    check_access(host, token_file=None, auth_realm="https://ward.example/realms/label")
    with pytest.raises(ValueError, match="one of both"):
        check_access(host, token_file="token", auth_realm="https://ward.example/realms/label")


def test_a_server_asks_for_what_it_is_told_to(tmp_path: Path) -> None:
    alone = settings_of(tmp_path, token_file=None, auth_realm=None)
    realm = settings_of(tmp_path, token_file=None, auth_realm="https://ward.example/realms/label")
    token = settings_of(tmp_path, token_file="token", auth_realm=None)
    assert (alone["MONAI_LABEL_AUTH_ENABLE"], realm["MONAI_LABEL_AUTH_ENABLE"]) == ("false", "true")
    assert realm["MONAI_LABEL_AUTH_REALM_URI"] == "https://ward.example/realms/label"
    assert TOKEN_VARIABLE in token
    assert TOKEN_VARIABLE not in alone


def test_a_port_that_is_taken_and_images_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ValueError, match=rf"--port {port}: cannot be served at \(Address already in use"):
            start("covid_xray_transfer", str(tmp_path), port=port, output_dir=str(tmp_path / "out"))
    with pytest.raises(FileNotFoundError, match="nothing: no such folder"):
        start("covid_xray_transfer", str(tmp_path / "nothing"), output_dir=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_server_that_ends_by_itself_is_told_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no space left')"]
    with pytest.raises(ValueError, match=r"the server ended before it answered \(no space left\): .*server\.log"):
        _serve(command, {}, tmp_path, ("127.0.0.1", 1), "ready")


def test_a_server_that_goes_away_later_is_told_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    serving = "import socket, sys; socket.create_server(('127.0.0.1', int(sys.argv[1]))).accept(); sys.exit(3)"
    with pytest.raises(ValueError, match="the server has ended with exit status 3"):
        _serve([sys.executable, "-c", serving, str(port)], {}, tmp_path, ("127.0.0.1", port), "ready")
    assert capsys.readouterr().out.startswith("ready (log: ")


def test_a_training_ends_with_its_server(tmp_path: Path) -> None:
    training = "import time\nwhile True: open('beats', 'a').write('.'); time.sleep(0.02)"
    serving = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {training!r}]); time.sleep(2)"
    with pytest.raises(ValueError, match="the server ended before it answered"):
        _serve([sys.executable, "-c", serving], {}, tmp_path, ("127.0.0.1", 1), "ready")
    beats = (tmp_path / "beats").stat().st_size
    assert beats > 0
    time.sleep(0.5)
    assert (tmp_path / "beats").stat().st_size == beats
