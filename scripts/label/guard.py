"""A server of MONAI Label behind a token: what does not bring it is refused before the server sees it."""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

TOKEN_VARIABLE = "CLINBUNDLES_LABEL_TOKEN_FILE"
LEAST_LENGTH = 16

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class TokenGuard:
    """Let those requests through to an ASGI application that bring a token, as ``Authorization: Bearer TOKEN``.

    Args:
        app: the application.
        token: the secret that its users share.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], token: str) -> None:
        self.app = app
        self.expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it with status 401 and a sentence."""
        headers = dict(scope.get("headers", ()))
        # A browser asks beforehand, without the token, whether it may bring one.
        free = scope["type"] == "lifespan" or scope.get("method") == "OPTIONS"
        if free or hmac.compare_digest(headers.get(b"authorization", b""), self.expected):
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        body = json.dumps({"detail": "this server asks for a token, and the request has none or another."}).encode()
        kind = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
        await send({"type": "http.response.start", "status": 401, "headers": kind})
        await send({"type": "http.response.body", "body": body})


def read_token(path: str | Path) -> str:
    """Read the token of a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is short, or has more than one word.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"--token_file {file}: no such file.")
    token = file.read_text(encoding="utf-8").strip()
    if len(token) < LEAST_LENGTH or len(token.split()) != 1:
        raise ValueError(f"--token_file {file}: expected one word of {LEAST_LENGTH} characters or more.")
    return token


def __getattr__(name: str) -> Any:
    """Make ``app``, the guarded server, when uvicorn asks for it: only there MONAI Label can be imported."""
    if name != "app":
        raise AttributeError(name)
    from monailabel.app import app

    return TokenGuard(app, read_token(os.environ[TOKEN_VARIABLE]))
