"""Serve bundles by MONAI Label, to annotate with: in 3D Slicer, OHIF, QuPath, or whatever speaks its HTTP.

    clinbundles label start gaze_polyp_segmentation /data/frames
    clinbundles label start dist /data/frames --port 8001

The server runs in an environment of its own (:mod:`.environment`) and answers on this machine alone. To others it is
shown with ``--host`` only behind a token, or behind a realm of OpenID Connect, such as Keycloak, whose users log in.
"""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from clinbundles.engines.folder_lock import lock_folder, unlock_folder
from clinbundles.engines.outputs.files import write_atomically
from clinbundles.scripts.annotate.run import open_port
from clinbundles.scripts.flags import as_parts

from .bundles import lay_out, link_code
from .environment import label_python
from .guard import TOKEN_VARIABLE, read_token

MAIN = "from clinbundles.scripts.label.app import App as App\n"
PATIENCE = 180  # seconds until a server answers that has to import PyTorch


def start(
    bundles: str,
    studies: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    output_dir: str = "runs/label",
    token_file: str | None = None,
    auth_realm: str | None = None,
    ssl_certfile: str | None = None,
    ssl_keyfile: str | None = None,
    constraints: str | None = None,
    cache_dir: str | None = None,
) -> None:
    """Serve bundles by MONAI Label until interrupted: inference, training on what is labelled, and what to label next.

    Args:
        bundles: names or folders of bundles, zips of clinbundles pack, and folders of such zips, comma separated.
        studies: folder of the images; labels are kept in its folder labels.
        host: address to listen at. Any other than of this machine needs token_file or auth_realm.
        port: of the server.
        output_dir: folder for the bundles that are served, what is trained there, and the log.
        token_file: file with a secret; every request has to bring it, as "Authorization: Bearer SECRET".
        auth_realm: address of a realm of OpenID Connect, whose users MONAI Label lets in by their roles.
        ssl_certfile: certificate, to answer by HTTPS.
        ssl_keyfile: its key.
        constraints: versions of the packages of MONAI Label; None takes constraints-label.txt of this release.
        cache_dir: folder of its environment; None takes clinbundles in the user's cache folder.
    """
    check_access(host, token_file=token_file, auth_realm=auth_realm)
    token = read_token(token_file) if token_file else None
    for option, file in (("ssl_certfile", ssl_certfile), ("ssl_keyfile", ssl_keyfile)):
        if file is not None and not Path(file).is_file():
            raise FileNotFoundError(f"--{option} {file}: no such file.")
    if not Path(studies).is_dir():
        raise FileNotFoundError(f"{studies}: no such folder; the images to label were expected there.")
    open_port(host, port).close()
    folder = Path(output_dir).absolute()
    lock_folder(folder, doing="server")
    try:
        places = lay_out(as_parts(bundles), folder)
        python = label_python(constraints=constraints, cache_dir=cache_dir)
        write_atomically(folder / "main.py", MAIN)
        settings = settings_of(folder, token_file=token_file, auth_realm=auth_realm)
        command = [str(python), "-m", "monailabel.main", "start_server", "--app", str(folder)]
        command += ["--studies", str(Path(studies).resolve()), "--host", host, "--port", str(port)]
        command += ["--conf", "bundles", json.dumps([str(place) for place in places])]
        command += ["--uvicorn_app", "clinbundles.scripts.label.guard:app"] if token else []
        for option, file in (("--ssl_certfile", ssl_certfile), ("--ssl_keyfile", ssl_keyfile)):
            command += [option, str(Path(file).resolve())] if file else []
        address = f"{'https' if ssl_certfile else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        names = ", ".join(place.name for place in places)
        _serve(command, {**os.environ, **settings}, folder, (host, port), f"{names}: {address}")
    finally:
        unlock_folder(folder)


def check_access(host: str, *, token_file: str | None, auth_realm: str | None) -> None:
    """Refuse to show a server to other machines that asks nobody who they are.

    Raises:
        ValueError: the address is not of this machine, and there is neither a token nor a realm; or there are both.
    """
    if token_file and auth_realm:
        raise ValueError("--token_file and --auth_realm: a server asks for one of both.")
    if not token_file and not auth_realm and not is_loopback(host):
        raise ValueError(
            f"--host {host}: others could read the images and change labels; give --token_file, or --auth_realm, too."
        )


def is_loopback(host: str) -> bool:
    """Tell an address that this machine alone can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def settings_of(folder: Path, *, token_file: str | None, auth_realm: str | None) -> dict[str, str]:
    """Give the variables by which a server is set: no tracking, no network, whatever the user's own say."""
    settings = {
        "PYTHONPATH": str(link_code(folder)),
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        "MONAI_LABEL_TRACKING_ENABLED": "false",
        "MONAI_LABEL_AUTH_ENABLE": "true" if auth_realm else "false",
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
    }
    if auth_realm:
        settings["MONAI_LABEL_AUTH_REALM_URI"] = auth_realm
    if token_file:
        settings[TOKEN_VARIABLE] = str(Path(token_file).resolve())
    return settings


def _serve(
    command: list[str], environment: Mapping[str, str], folder: Path, place: tuple[str, int], ready: str
) -> None:
    """Run a server until it ends, or this process, which it does not outlive, and say when it is ready.

    Raises:
        ValueError: it ends by itself, or does not answer.
    """
    log = folder / "server.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        _wait(server, place, log)
        print(f"{ready} (log: {log})", flush=True)
        code = server.wait()
        raise ValueError(f"the server has ended with exit status {code}: {log}")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    finally:
        signal.signal(signal.SIGTERM, before)
        _end(server)


def _end(server: subprocess.Popen) -> None:
    """End a server with its trainings, which are processes of their own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)  # its session, of which it is the first
        with suppress(subprocess.TimeoutExpired):
            server.wait(10)


def _wait(server: subprocess.Popen, place: tuple[str, int], log: Path) -> None:
    """Wait until a server listens, which MONAI Label's does once it can answer."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        if server.poll() is not None:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            said = lines[-1] if lines else f"exit status {server.returncode}"
            raise ValueError(f"the server ended before it answered ({said}): {log}")
        with suppress(OSError), socket.create_connection(place, timeout=5):
            return
        time.sleep(0.2)
    raise ValueError(f"the server has not answered within {PATIENCE} s: {log}")
