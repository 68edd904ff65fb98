"""`swd-eval study serve`: the study's application under uvicorn, whose connections have deadlines and a cap."""

import logging
import signal
import socket
import sys
from contextlib import closing, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import FrameType

from uvicorn import Config, Server

from swd_data import read_text
from swd_eval.study.app import StudyApp
from swd_eval.study.connections import REQUEST_SECONDS, TimedProtocol
from swd_eval.study.pairs import PUBLIC, RATERS, VOTES, Key
from swd_eval.study.votes import Votes

LOG_BYTES, LOG_FILES = 2**20, 3


class StudyServer:
    """Serve one study: what is in `files` and nothing else, to raters with a token.

    `run` returns once `server.should_exit` is set, or a signal came.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1", port: int = 0) -> None:
        key = Key.read(folder)
        self.raters = read_text(folder / RATERS).split()
        names = [name for pair in key.pairs for name in pair.media]
        self.files = {f"/media/{name}": folder / PUBLIC / "media" / name for name in names}
        self.page = (folder / PUBLIC / "index.html").read_bytes()
        self.votes = Votes(folder / VOTES, [pair.id for pair in key.pairs])
        self.app = StudyApp(self.page, self.files, self.raters, self.votes)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=256)
        self.server = Server(
            Config(
                self.app,
                http=TimedProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=int(REQUEST_SECONDS),
                timeout_graceful_shutdown=5,
                h11_max_incomplete_event_size=16384,
            )
        )

    @property
    def url(self) -> str:
        """Where the study is found, without a token."""
        host, port, *_ = self._socket.getsockname()
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def run(self) -> None:
        """Serve."""
        with self._socket:
            self.server.run(sockets=[self._socket])

    def close(self) -> None:
        """Close the file of votes, and the socket if nobody served."""
        self.votes.close()
        self._socket.close()


def serve_study(folder: Path, host: str, port: int, log: Path | None = None) -> str:
    """Serve until interrupted; `log` gets a line a request, without tokens, and is bounded."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if not 0 <= port <= 65535:
        raise ValueError(f"expected --port from 0 to 65535, got {port}")
    with closing(StudyServer(folder, host, port)) as server:
        signal.signal(signal.SIGTERM, stop)
        _log_to(log)
        print(f"serving {folder} at {server.url}\none link a rater:")
        print("\n".join(f"  {server.url}?rater={rater}" for rater in server.raters), flush=True)
        with suppress(KeyboardInterrupt):
            server.run()
    return f"stopped; next: swd-eval study report {folder}"


class _Again(logging.Filter):
    """Drops what was said in the last minute: a full disk answers each of many raters."""

    said: tuple[str, float] = "", 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a line is new."""
        if record.getMessage() == self.said[0] and record.created < self.said[1] + 60:
            return False
        self.said = record.getMessage(), record.created
        return True


def _log_to(path: Path | None) -> None:
    """Show errors on stderr, and with a path each request there."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # not that somebody sent no HTTP
    shown = logging.StreamHandler(sys.stderr)
    shown.setLevel(logging.ERROR)
    shown.addFilter(_Again())
    handlers: list[logging.Handler] = [shown]
    if path is not None:
        handlers.append(RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8"))
        logging.getLogger("swd_eval.study").setLevel(logging.INFO)
    logging.basicConfig(format="%(asctime)s %(message)s", handlers=handlers, force=True)
