"""The study over HTTP: the page, its media, where a rater stands, and a place for votes."""

import json
import logging
import sqlite3
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from swd_eval.study.votes import RefusedError, Vote, Votes

MAX_BODY = 4096  # bytes; a vote has about 150
TYPES = {".png": "image/png", ".mp4": "video/mp4", ".webm": "video/webm"}
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"frame-ancestors 'none'"),  # the rest stands in the page
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
NEVER_KEPT, CLOSE = {"Cache-Control": "no-store"}, {"Connection": "close"}
RETRY_SECONDS = 5
log = logging.getLogger("swd_eval.study")


class StudyApp:
    """The application: raters with a token get the page; of files, those of a table alone, by their paths.

    It refuses requests that disagree with themselves, adds the headers, and notes each request without its token.
    """

    def __init__(self, page: bytes, files: Mapping[str, Path], raters: Sequence[str], votes: Votes) -> None:
        self.page, self.files, self.raters, self.votes = page, files, raters, votes
        routes = [
            Route("/", self.show),
            Route("/api/state", self.state),
            Route("/api/vote", self.vote, methods=["POST"]),
            Route("/media/{name}", self.media),
            Route("/healthz", self.health),
        ]
        handlers = {HTTPException: _refusal, OSError: _unavailable, sqlite3.Error: _unavailable}
        self._app = Starlette(routes=routes, exception_handlers=handlers)
        self._app.router.redirect_slashes = False  # to whatever host a request names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began, status = time.perf_counter(), 0

        async def send_with(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        app = self._app if _agrees(scope) else PlainTextResponse("this request disagrees with itself\n", 400, CLOSE)
        await app(scope, receive, send_with)
        rater = Request(scope).query_params.get("rater", "")
        name = f"rater-{self.raters.index(rater) + 1}" if rater in self.raters else "-"
        seconds = time.perf_counter() - began
        log.info("%s %r %s %s %.3f s", scope["method"], scope["path"][:80], status, name, seconds)

    def show(self, request: Request) -> Response:
        """Send the page."""
        self._rater(request)
        return Response(self.page, media_type="text/html", headers=NEVER_KEPT)

    def state(self, request: Request) -> Response:
        """Say where a rater stands."""
        rater = self._rater(request)
        given = [[answer.pair, answer.criterion, answer.answer] for answer in self.votes.answers(rater)]
        return JSONResponse(self.votes.stand(rater) | {"votes": given}, headers=NEVER_KEPT)

    async def vote(self, request: Request) -> Response:
        """Take a vote; the answer comes once it is on disk."""
        body = await _body(request)
        try:
            return JSONResponse(await run_in_threadpool(self._take, body), headers=NEVER_KEPT)
        except RefusedError as error:
            raise HTTPException(HTTPStatus.CONFLICT, str(error)) from error
        except (ValueError, RecursionError) as error:
            raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from error

    def media(self, request: Request) -> Response:
        """Send an image or a video, whole or the parts that were asked for: Safari plays no video without."""
        # A table made once: a path that is not in it, however written, is not found.
        path = self.files.get(request.url.path)
        if path is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        headers = {"Cache-Control": "private, max-age=86400"}
        answer = FileResponse(path, media_type=TYPES[path.suffix], headers=headers, stat_result=path.stat())
        # The order of writing is nobody's business.
        answer.headers.update({"last-modified": "Thu, 01 Jan 1970 00:00:00 GMT", "etag": f'"{path.stem}"'})
        return answer

    def health(self, _: Request) -> Response:
        """Say that votes can be read."""
        self.votes.answers("nobody")
        return PlainTextResponse("ok\n")

    def _rater(self, request: Request) -> str:
        rater = request.query_params.get("rater", "")
        if rater not in self.raters:
            raise HTTPException(HTTPStatus.FORBIDDEN, "this link is not valid: use the one that you were given")
        return rater

    def _take(self, body: bytes) -> dict[str, Any]:
        vote = Vote.parse(json.loads(body))
        if vote.rater not in self.raters:
            raise HTTPException(HTTPStatus.FORBIDDEN, "unknown rater")
        return self.votes.add(vote)


async def _body(request: Request) -> bytes:
    """Read the body of a vote, of a length that was told before."""
    length = request.headers.get("content-length")
    if length is None:
        raise HTTPException(HTTPStatus.LENGTH_REQUIRED, "expected a body of a known length", CLOSE)
    if int(length) > MAX_BODY:
        text = f"expected a body of at most {MAX_BODY} bytes"
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text, CLOSE)
    try:
        return await request.body()
    except ClientDisconnect as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "expected a whole body") from error


def _refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(f"{error.detail}\n", error.status_code, NEVER_KEPT | dict(error.headers or {}))


def _unavailable(_: Request, error: Exception) -> Response:
    """Answer that the disk or the file of votes is not to be had just now; the page keeps the vote and asks again."""
    log.error("503: %s", " ".join(str(error).split()))
    text = "this cannot be read or saved just now: it will be tried again\n"
    retry = {"Retry-After": str(RETRY_SECONDS)}
    return PlainTextResponse(text, HTTPStatus.SERVICE_UNAVAILABLE, NEVER_KEPT | retry)


def _agrees(scope: Scope) -> bool:
    """Tell whether a request is one: two lengths, or two hosts, are what smuggles a second past a proxy."""
    names = [name for name, _ in scope["headers"]]
    framing = names.count(b"content-length") + names.count(b"transfer-encoding")
    return framing <= 1 and names.count(b"host") <= 1
