"""The study server as strangers meet it: idle, slow, too many, and disagreeing with themselves."""

import http.client
import json
import socket
import sqlite3
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from urllib.parse import urlsplit

import pytest

from swd_eval.study import connections
from swd_eval.study.criteria import CRITERIA
from swd_eval.study.pairs import Key
from swd_eval.study.server import _log_to

SECONDS = 1.5
ANSWER = {"pair": "none", "criterion": "relevance", "answer": 1}


@pytest.fixture
def hurried(monkeypatch):
    """Shorten the time for a request."""
    monkeypatch.setattr(connections, "REQUEST_SECONDS", SECONDS)


def connect(url):
    host, port = urlsplit(url).netloc.split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def ask(url, text):
    """Send bytes as they are; return all that comes back until the server closes."""
    with connect(url) as connection:
        connection.sendall(text)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def is_closed(connection):
    """Tell whether the server has ended a connection."""
    connection.settimeout(0)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


@contextmanager
def slow_senders(url, num):
    """Send a request each, byte by byte, for as long as the server lets them: headers, or the body of a vote."""
    head = b"POST /api/vote HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n"
    texts = [head + b"{" * 4000 if number % 2 else b"GET /" + b"a" * 4000 for number in range(num)]
    ended, threads, stop = [0.0] * num, [], threading.Event()

    def send(number):
        began = time.perf_counter()
        with connect(url) as connection:
            try:
                connection.sendall(texts[number][: len(head)] if number % 2 else texts[number][:20])
                for byte in texts[number][len(head) :]:
                    if stop.is_set():
                        return
                    connection.sendall(bytes([byte]))
                    time.sleep(0.1)
                    if is_closed(connection):
                        break
            except ConnectionError:
                pass
        ended[number] = time.perf_counter() - began

    for number in range(num):
        threads.append(threading.Thread(target=send, args=(number,)))
        threads[-1].start()
    try:
        yield ended
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_idle_connections_and_slow_senders_keep_no_rater_waiting_and_are_gone_in_time(
    web, make_study, serving, hurried
):
    folder = make_study(3)
    with serving(folder) as server, ExitStack() as stack:
        first = server.raters[1]  # what only the first request of a process has to do is done before
        assert web.get(server.url, f"/?rater={first}")[0] == web.get(server.url, next(iter(server.files)))[0] == 200
        assert web.post(server.url, {"id": "vote-0000", "rater": first} | ANSWER)[0] == 409
        idle = [stack.enter_context(connect(server.url)) for _ in range(60)]
        began = time.perf_counter()
        with slow_senders(server.url, 20) as ended:
            rater, answers = server.raters[0], []
            state = web.stand(server.url, rater)
            for criterion in CRITERIA:
                vote = {"id": f"vote-{criterion.id}", "rater": rater, "pair": state["pair"], "answer": 1}
                vote |= {"criterion": criterion.id}
                for call in (
                    lambda vote=vote: web.post(server.url, vote),
                    lambda: web.get(server.url, f"/?rater={rater}"),
                    lambda: web.get(server.url, next(iter(server.files))),
                ):
                    start = time.perf_counter()
                    assert call()[0] == 200
                    answers.append(time.perf_counter() - start)
            while not (all(ended) and all(map(is_closed, idle))):
                assert time.perf_counter() - began < 10 * SECONDS
                time.sleep(0.1)
        print(f"worst answer {max(answers):.3f} s, last sender gone after {max(ended):.1f} s")
        assert max(answers) < SECONDS / 2  # whoever waited for a sender would wait till it is cut off
        assert max(ended) < SECONDS + 2
    assert len(web.votes_of(folder)) == len(CRITERIA)


def test_connections_beyond_the_cap_are_turned_away(web, make_study, serving, monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 4)
    with serving(make_study(1)) as server, ExitStack() as stack:
        held = [stack.enter_context(connect(server.url)) for _ in range(4)]
        time.sleep(0.2)
        assert ask(server.url, b"").startswith(b"HTTP/1.1 503 ")
        assert not any(map(is_closed, held))
        held[0].close()
        time.sleep(0.2)
        assert web.get(server.url, "/healthz") == (200, b"ok\n")


def test_an_answer_that_nobody_takes_ends(make_study, serving, monkeypatch):
    monkeypatch.setattr(connections, "RESPONSE_SECONDS", 0.5)
    with serving(make_study(1)) as server:
        server.app.page = b"a" * 50_000_000  # more than sockets hold
        with connect(server.url) as connection:
            connection.sendall(f"GET /?rater={server.raters[0]} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            time.sleep(2)
            connection.settimeout(5)
            taken = 0
            with suppress(ConnectionError):
                while part := connection.recv(1 << 20):
                    taken += len(part)
            assert taken < 50_000_000


VOTE = b'{"id": "vote-0001", "rater": "%s", "pair": "%s", "criterion": "relevance", "answer": 1}'
LINE = b"POST /api/vote HTTP/1.1\r\n"


@pytest.mark.parametrize(
    "head",
    [
        LINE + b"Host: a\r\nContent-Length: %d\r\nContent-Length: 3\r\n\r\n",
        LINE + b"Host: a\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n",
        LINE + b"Host: a\r\nContent-Length: +%d\r\n\r\n",
        LINE + b"Host: a\r\nContent-Length: %d, 3\r\n\r\n",
        LINE + b"Host: a\r\nHost: b\r\nContent-Length: %d\r\n\r\n",
        LINE + b"Content-Length: %d\r\n\r\n",
        LINE + b"Host: a\r\nContent-Length : %d\r\n\r\n",
        LINE + b"Host: a\r\nContent-Length: -%d\r\n\r\n",
        LINE + b"Host: a\r\nX: a\0b\r\nContent-Length: %d\r\n\r\n",
        b"POST /api/vote HTTP/1.x\r\nHost: a\r\nContent-Length: %d\r\n\r\n",
        b"POST  /api/vote  HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n",
    ],
)
def test_a_request_that_disagrees_with_itself_is_closed_with_400(web, make_study, serving, head):
    folder = make_study(1)
    with serving(folder) as server:
        body = VOTE % (server.raters[0].encode(), Key.read(folder).pairs[0].id.encode())
        web.stand(server.url, server.raters[0])
        text = head.replace(b"%d", str(len(body)).encode()) + body
        second = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
        found = ask(server.url, text + second)
        assert found.startswith(b"HTTP/1.1 400 ")
        assert found.count(b"HTTP/1.1 ") == 1
    assert web.votes_of(folder) == []


def test_headers_of_every_answer_forbid_framing_and_guessing(make_study, serving):
    with serving(make_study(1)) as server:
        media = next(iter(server.files))
        for path, status in ((f"/?rater={server.raters[0]}", 200), ("/", 403), (media, 200), ("/none", 404)):
            with closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)) as connection:
                connection.request("GET", path)
                answer = connection.getresponse()
                found = {name.lower(): value for name, value in answer.getheaders()}
                assert answer.status == status
                assert found["x-frame-options"] == "DENY"
                assert found["content-security-policy"] == "frame-ancestors 'none'"
                assert found["x-content-type-options"] == "nosniff"
                assert "server" not in found
                assert found.get("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT").startswith("Thu, 01 Jan 1970")


def test_head_is_get_without_a_body(web, make_study, serving):
    with serving(make_study(1)) as server:
        for path in (f"/?rater={server.raters[0]}", next(iter(server.files)), "/healthz"):
            found = []
            for method in ("GET", "HEAD"):
                with closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)) as connection:
                    connection.request(method, path)
                    answer = connection.getresponse()
                    headers = {name.lower(): value for name, value in answer.getheaders() if name.lower() != "date"}
                    found.append((answer.status, headers, answer.read()))
            assert found[1] == (*found[0][:2], b"")
        assert web.get(server.url, "/api/vote")[0] == 405


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), OSError(28, "No space left on device")])
def test_a_disk_that_fails_is_a_503_with_a_retry_and_one_line(web, make_study, serving, monkeypatch, capfd, error):
    _log_to(None)
    folder = make_study(1)
    with serving(folder) as server:
        rater = server.raters[0]
        vote = {"id": "vote-0001", "rater": rater, "pair": web.stand(server.url, rater)["pair"], "answer": 1}
        vote |= {"criterion": "relevance"}
        capfd.readouterr()
        with monkeypatch.context() as broken:

            def fail(_):
                raise error

            broken.setattr(server.votes, "add", fail)
            for _ in range(3):
                with closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)) as connection:
                    connection.request("POST", "/api/vote", json.dumps(vote))
                    answer = connection.getresponse()
                    assert (answer.status, answer.getheader("Retry-After")) == (503, "5")
        (line,) = capfd.readouterr().err.splitlines()
        assert str(error) in line
        assert web.post(server.url, vote)[0] == 200
    assert [answer.answer for answer in web.votes_of(folder)] == [1]


def test_media_that_are_gone_are_a_503(web, make_study, serving):
    with serving(make_study(1)) as server:
        path, file = next(iter(server.files.items()))
        file.unlink()
        assert web.get(server.url, path)[0] == 503
        assert web.get(server.url, "/healthz")[0] == 200


def test_the_log_has_a_line_a_request_and_no_token(web, make_study, serving, tmp_path):
    _log_to(tmp_path / "study.log")
    with serving(make_study(1)) as server:
        web.stand(server.url, server.raters[1])
        web.get(server.url, f"/?rater={server.raters[1]}&x=1")
        web.get(server.url, "/%0aforged?rater=stranger")
        assert not any(rater in (tmp_path / "study.log").read_text() for rater in server.raters)
    first, second, third = (tmp_path / "study.log").read_text().splitlines()
    assert "GET '/api/state' 200 rater-2 0." in first
    assert "GET '/' 200 rater-2 0." in second
    assert "GET '/\\nforged' 404 - 0." in third


@pytest.mark.parametrize("since", ["Thu, 01 Jan 1970 00:00:00 GMT", '"of another file"', "nonsense"])
def test_a_part_of_what_may_have_changed(web, make_study, serving, since):
    with serving(make_study(1)) as server:
        path, file = next(iter(server.files.items()))
        status, body = web.get(server.url, path, **{"Range": "bytes=0-9", "If-Range": since})
        assert (status, len(body)) == ((206, 10) if "1970" in since else (200, file.stat().st_size))
