"""A file over HTTP, whole or in part: Safari plays no video from a server that knows no ranges."""

import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path


def send_range(handler: BaseHTTPRequestHandler, path: Path, kind: str) -> None:
    """Send a file, or the one range of bytes that was asked for."""
    size = path.stat().st_size
    found = re.fullmatch(r"bytes=(\d{1,15})-(\d{0,15})", handler.headers.get("Range", ""))
    first, last = (int(found[1]), min(int(found[2] or size), size - 1)) if found else (0, size - 1)
    if found and first > last:
        handler.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
        handler.send_header("Content-Range", f"bytes */{size}")
        first, last = 0, -1
    elif found:
        handler.send_response(HTTPStatus.PARTIAL_CONTENT)
        handler.send_header("Content-Range", f"bytes {first}-{last}/{size}")
    else:
        handler.send_response(HTTPStatus.OK)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(last - first + 1))
    handler.send_header("Accept-Ranges", "bytes")
    handler.send_header("Cache-Control", "private, max-age=86400")
    handler.send_header("X-Content-Type-Options", "nosniff")
    handler.end_headers()
    with path.open("rb") as file:
        file.seek(first)
        handler.wfile.write(file.read(last - first + 1))
