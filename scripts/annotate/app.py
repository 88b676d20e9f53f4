"""The web application behind the annotation page."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader
from pydantic import BaseModel, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from .answers import Answers
from .pictures import crop_of, overview_of
from .questions import Points, Question

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Reply(BaseModel):
    """An answer as the page sends it."""

    question: str
    label: Annotated[int, Field(ge=0, le=1)]
    seconds: float


def make_app(
    questions: list[Question],
    points: Points,
    answers: Answers,
    *,
    annotator: str,
    token: str,
    host: str,
    finish: Callable[[], object],
) -> FastAPI:
    """Make the application.

    What changes the answers has to bring the application's ``state.session``, which the page holds: neither a page
    that was left open from an earlier start nor one of another site can answer.

    Args:
        questions: in the order in which they are asked.
        points: their points.
        answers: where they go.
        annotator: name of the person.
        token: what every request has to bring; an empty text asks for none.
        host: that the page is served at; on a loopback address no request for another name is answered.
        finish: is called when the last question has its answer.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if host in LOOPBACK:  # so that a page elsewhere cannot reach it under a name of its own
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"])
    by_name = {question.name: question for question in questions}
    app.state.session = session = secrets.token_hex(8)
    lock = Lock()  # requests come in several threads
    page = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True).get_template("page.html.jinja")

    def check(token_given: Annotated[str, Query(alias="token")] = "") -> None:
        if token and not secrets.compare_digest(token_given.encode(), token.encode()):
            raise HTTPException(403, "the token is missing or wrong")

    def find(name: str) -> Question:
        if name not in by_name:
            raise HTTPException(404, f"there is no question {name}")
        return by_name[name]

    def check_session(session_given: Annotated[str, Query(alias="session")] = "") -> None:
        if not secrets.compare_digest(session_given.encode(), session.encode()):
            raise HTTPException(409, "this page is from an earlier start: load it again")

    def state() -> dict[str, Any]:
        waiting = [question.name for question in questions if question.name not in answers.by_name]
        done = {"done": len(questions) - len(waiting), "total": len(questions), "seconds": answers.median_seconds}
        question, following = (*waiting[:2], None, None)[:2]
        return done | {"question": question, "next": following}

    allowed = [Depends(check)]
    changing = [*allowed, Depends(check_session)]

    @app.get("/", response_class=HTMLResponse, dependencies=allowed)
    def show_page() -> str:
        return page.render(total=len(questions), annotator=annotator, token=token, session=session)

    @app.get("/state", dependencies=allowed)
    def show_state() -> dict[str, Any]:
        with lock:
            return state()

    @app.get("/crop/{name}", dependencies=allowed)
    def show_crop(name: str) -> Response:
        question = find(name)
        return _picture(crop_of(question.image, question.box, points.place_of(question)))

    @app.get("/overview/{name}", dependencies=allowed)
    def show_overview(name: str) -> Response:
        question = find(name)
        return _picture(overview_of(question.image, question.box))

    @app.post("/answer", dependencies=changing)
    def take_answer(reply: Reply) -> dict[str, Any]:
        question = find(reply.question)
        if not 0 <= reply.seconds < math.inf:  # pydantic would send it back, which JSON cannot
            raise HTTPException(422, "the seconds are no number from 0 on")
        x, y = points.place_of(question)
        with lock:
            if question.name not in answers.by_name:  # another tab may have been faster
                answers.add(question.name, x=x, y=y, label=reply.label, seconds=reply.seconds)
            after = state()
            if after["question"] is None:
                finish()
            return after

    @app.post("/undo", dependencies=changing)
    def undo() -> dict[str, Any]:
        with lock:
            answers.undo()
            return state()

    return app


def _picture(content: bytes) -> Response:
    return Response(content, media_type="image/png", headers={"Cache-Control": "private, max-age=600"})
