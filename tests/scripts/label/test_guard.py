"""Requests with and without the token of a server."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from clinbundles.scripts.label.guard import TokenGuard, read_token

TOKEN = "0123456789abcdef"


def ask(headers: dict[str, str], *, method: str = "GET", kind: str = "http") -> tuple[bool, list[dict[str, Any]]]:
    """Send a request to a guarded application: whether it came through, and what was answered."""
    through, sent = [], []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        through.append(scope)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> None:
        return None

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(TokenGuard(app, TOKEN)({"type": kind, "method": method, "headers": raw}, receive, send))
    return bool(through), sent


@pytest.mark.parametrize("value", [None, "", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}"])
def test_a_request_without_the_token_is_refused_in_a_sentence(value: str | None) -> None:
    through, (start, body) = ask({} if value is None else {"authorization": value})
    assert not through
    assert start["status"] == 401
    assert json.loads(body["body"])["detail"].startswith("this server asks for a token")


def test_a_request_with_the_token_comes_through() -> None:
    assert ask({"authorization": f"Bearer {TOKEN}"}) == (True, [])


def test_a_browser_may_ask_beforehand_and_nothing_else_comes_through_without_the_token() -> None:
    assert ask({}, method="OPTIONS") == (True, [])
    assert ask({}, kind="websocket") == (False, [{"type": "websocket.close", "code": 1008}])


@pytest.mark.parametrize("content", ["", "short", "two words of some length"])
def test_a_secret_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(ValueError, match=r"token: expected one word of 16 characters or more\."):
        read_token(tmp_path / "token")


def test_the_end_of_a_line_is_no_part_of_a_secret(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert read_token(tmp_path / "token") == TOKEN
