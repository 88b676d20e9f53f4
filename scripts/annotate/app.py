"""The web application behind the annotation page."""

from __future__ import annotations

import secrets
from pathlib import Path
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
    seconds: Annotated[float, Field(ge=0)]


def make_app(
    questions: list[Question], points: Points, answers: Answers, *, annotator: str, token: str, host: str
) -> FastAPI:
    """Make the application.

    Args:
        questions: in the order in which they are asked.
        points: their points.
        answers: where they go.
        annotator: name of the person.
        token: what every request has to bring; an empty text asks for none.
        host: that the page is served at; on a loopback address no request for another name is answered.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if host in LOOPBACK:  # so that a page elsewhere cannot reach it under a name of its own
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]", "testserver"])
    by_name = {question.name: question for question in questions}
    places: dict[str, tuple[int, int]] = {}
    page = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True).get_template("page.html.jinja")

    def check(token_given: Annotated[str, Query(alias="token")] = "") -> None:
        if token and not secrets.compare_digest(token_given.encode(), token.encode()):
            raise HTTPException(403, "the token is missing or wrong")

    def find(name: str) -> Question:
        if name not in by_name:
            raise HTTPException(404, f"there is no question {name}")
        return by_name[name]

    def place_of(question: Question) -> tuple[int, int]:
        if question.name not in places:
            places[question.name] = points.place_of(question, answers.pixels_of(question.annotation_id))
        return places[question.name]

    def state() -> dict[str, Any]:
        waiting = (question.name for question in questions if question.name not in answers.by_name)
        question, following = next(waiting, None), next(waiting, None)
        done = {"done": len(answers.by_name), "total": len(questions), "seconds": answers.median_seconds}
        return done | {"question": question, "next": following}

    allowed = [Depends(check)]

    @app.get("/", response_class=HTMLResponse, dependencies=allowed)
    def show_page() -> str:
        return page.render(total=len(questions), annotator=annotator, token=token)

    @app.get("/state", dependencies=allowed)
    def show_state() -> dict[str, Any]:
        return state()

    @app.get("/crop/{name}", dependencies=allowed)
    def show_crop(name: str) -> Response:
        question = find(name)
        return _picture(crop_of(question.image, question.box, place_of(question)))

    @app.get("/overview/{name}", dependencies=allowed)
    def show_overview(name: str) -> Response:
        question = find(name)
        return _picture(overview_of(question.image, question.box))

    @app.post("/answer", dependencies=allowed)
    def take_answer(reply: Reply) -> dict[str, Any]:
        question = find(reply.question)
        x, y = place_of(question)
        answers.add(question.name, x=x, y=y, label=reply.label, seconds=reply.seconds)
        return state()

    @app.post("/undo", dependencies=allowed)
    def undo() -> dict[str, Any]:
        answers.undo()
        return state()

    return app


def _picture(content: bytes) -> Response:
    return Response(content, media_type="image/png", headers={"Cache-Control": "private, max-age=600"})
