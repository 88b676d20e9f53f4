"""One deadline over the whole of a call."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

REQUESTS = 3  # as many slow requests as one call may be made of


def seconds_of(uri: str) -> float | None:
    """Give how long one call of a store may take, in seconds; None for a database on this machine.

    Args:
        uri: SQLite or server URI. A server has three times MLFLOW_HTTP_REQUEST_TIMEOUT, which is 10 if not set.
    """
    is_server = uri.startswith(("http://", "https://"))
    return REQUESTS * float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")) if is_server else None


def within(seconds: float | None, call: Callable[[], Result]) -> Result:
    """Give what a call returns, or raise what it raises, or that it took too long.

    A client's timeout is between two bytes, so a server that sends its answer drop by drop could hold a training for
    ever. A call that is given up goes on in a thread of its own, which ends with the process.

    Args:
        seconds: the deadline; None to wait as long as it takes.
        call: what is to be done.

    Raises:
        TimeoutError: the deadline has passed.
    """
    if seconds is None:
        return call()
    outcomes: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcomes.put((call(), None))
        except BaseException as error:  # it is raised below, by the thread that asked
            outcomes.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        result, error = outcomes.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no whole answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return result
