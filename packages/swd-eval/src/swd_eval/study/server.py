"""`swd-eval study serve`: the page, its media, and a place for votes, over the standard library's HTTP server."""

import json
import signal
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from swd_data import read_text
from swd_eval.study.files import send_range
from swd_eval.study.pairs import PUBLIC, RATERS, VOTES, Key
from swd_eval.study.votes import RefusedError, Vote, Votes

MAX_BODY = 4096  # bytes; a vote has about 150
TYPES = {".png": "image/png", ".mp4": "video/mp4", ".webm": "video/webm"}


class StudyServer(ThreadingHTTPServer):
    """Serve one study: what is in `files` and nothing else, to raters with a token."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, host: str = "127.0.0.1", port: int = 0) -> None:
        key = Key.read(folder)
        self.raters = read_text(folder / RATERS).split()
        # A table made once: a path that is not in it, however written, is not found.
        names = [name for pair in key.pairs for name in pair.media]
        self.files = {f"/media/{name}": folder / PUBLIC / "media" / name for name in names}
        self.page = (folder / PUBLIC / "index.html").read_bytes()
        super().__init__((host, port), Handler)
        self.votes = Votes(folder / VOTES, [pair.id for pair in key.pairs])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors of ours; that a rater's connection broke is none."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Where the study is found, without a token."""
        return f"http://{self.server_address[0]!s}:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    """Answer one connection."""

    server: StudyServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "swd-eval", ""
    timeout = 60
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Send the page, one of its media, or where a rater stands."""
        url = urlsplit(self.path)
        rater = parse_qs(url.query).get("rater", [""])[0]
        if url.path in self.server.files:
            path = self.server.files[url.path]
            # No date of the file: the order of writing is nobody's business.
            send_range(self, path, TYPES[path.suffix])
        elif url.path not in ("/", "/api/state"):
            self._error(HTTPStatus.NOT_FOUND, "there is nothing here")
        elif rater not in self.server.raters:
            self._error(HTTPStatus.FORBIDDEN, "this link is not valid: use the one that you were given")
        elif url.path == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)
        else:
            answers = self.server.votes.answers(rater)
            votes = [[answer.pair, answer.criterion, answer.answer] for answer in answers]
            self._json(self.server.votes.stand(rater) | {"votes": votes})

    def do_POST(self) -> None:
        """Take a vote; the answer comes once it is on disk."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            self.close_connection = True  # what is left of the body is no request
            large = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if length.isdecimal() else HTTPStatus.LENGTH_REQUIRED
            return self._error(large, f"expected a body of at most {MAX_BODY} bytes")
        body = self.rfile.read(int(length))
        if urlsplit(self.path).path != "/api/vote":
            return self._error(HTTPStatus.NOT_FOUND, "there is nothing here")
        try:
            vote = Vote.parse(json.loads(body))
            if vote.rater not in self.server.raters:
                return self._error(HTTPStatus.FORBIDDEN, "unknown rater")
            self._json(self.server.votes.add(vote))
        except RefusedError as error:
            self._error(HTTPStatus.CONFLICT, str(error))
        except (ValueError, RecursionError) as error:
            self._error(HTTPStatus.BAD_REQUEST, str(error))

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: a log of requests would be full of tokens."""

    def _json(self, value: Any) -> None:
        self._send(HTTPStatus.OK, "application/json", json.dumps(value).encode())

    def _error(self, status: HTTPStatus, text: str) -> None:
        self._send(status, "text/plain; charset=utf-8", f"{text}\n".encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def serve_study(folder: Path, host: str, port: int) -> str:
    """Serve until interrupted."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if not 0 <= port <= 65535:
        raise ValueError(f"expected --port from 0 to 65535, got {port}")
    with StudyServer(folder, host, port) as server:
        signal.signal(signal.SIGTERM, stop)
        print(f"serving {folder} at {server.url}; one link a rater:")
        print("\n".join(f"  {server.url}?rater={rater}" for rater in server.raters), flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            server.votes.close()
    return f"stopped; next: swd-eval study report {folder}"
