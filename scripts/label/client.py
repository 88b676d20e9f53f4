"""Questions to a server of MONAI Label, whose refusals become one sentence."""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from .guard import read_token


def status(url: str = "http://127.0.0.1:8000", *, token_file: str | None = None) -> None:
    """Say which bundles a server of MONAI Label offers, and how many of its images are labelled.

    Args:
        url: of the server.
        token_file: file with the server's token.
    """
    info = ask(url, "/info/", token=read_token(token_file) if token_file else None)
    for name, model in info["models"].items():
        labels = ", ".join(model["labels"])
        print(f"{name} {model.get('version', '')}: {model['type']} of {labels}")
    store = info["datastore"]
    print(f"{store['completed']} of {store['total']} images are labelled: {url}")


def ask(
    url: str,
    path: str,
    *,
    token: str | None = None,
    content: Any = None,
    method: str | None = None,
    timeout: float = 600,
) -> Any:
    """Send a request to a server, and return its answer.

    Args:
        url: of the server.
        path: below it, such as "/info/".
        token: of the server.
        content: sent as JSON, by POST; None asks by GET.
        method: another one, such as "DELETE".
        timeout: seconds until an answer that does not come is given up.

    Raises:
        ValueError: the address is none, or the server refuses.
        ConnectionError: there is no server, or it goes away meanwhile.
    """
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise ValueError(f"{url!r} is no address of a server, such as http://127.0.0.1:8000")
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if content is None else json.dumps(content).encode()
    request = Request(url.rstrip("/") + path, data=data, headers=headers, method=method)
    try:
        with urlopen(request, timeout=timeout) as answer:
            text = answer.read()
    except HTTPError as error:
        raise ValueError(f"{url}{path}: {_detail(error)}") from error
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(
            f"{url}: no server answers there ({getattr(reason, 'strerror', None) or reason})."
        ) from error
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{url}{path}: the answer is not that of MONAI Label.") from error


def _detail(error: HTTPError) -> str:
    try:
        return str(json.loads(error.read())["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the server refuses with status {error.code}."
