import csv
import os
import subprocess
import sys
import zlib

import pytest
from PIL import Image

from swd_data import shell
from swd_data.errors import REPORT

SHELL = """
import sys
from swd_data import shell
def command():
{body}
shell("swd-test", command)
"""
PATH = os.pathsep.join(sys.path)


def start(body, **env):
    code = SHELL.format(body="\n".join("    " + line for line in body.splitlines()))
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "SWD_TRACEBACK"} | {"PYTHONPATH": PATH} | env,
    )


def ask(capsys, monkeypatch, command, explain=lambda _: None):
    """Run a command in this process; return its exit code and what it printed."""
    monkeypatch.delenv("SWD_TRACEBACK", raising=False)
    try:
        shell("swd-test", command, explain)
        code = 0
    except SystemExit as error:
        code = error.code
    return code, *capsys.readouterr()


def fail(error):
    def command():
        raise error

    return command


class SafetensorError(Exception):
    """Looks as that of safetensors does, which need not be there."""


SafetensorError.__module__ = "safetensors_rust"


def test_a_command_prints_what_it_returns(capsys, monkeypatch):
    assert ask(capsys, monkeypatch, lambda: "done") == (0, "done\n", "")
    assert ask(capsys, monkeypatch, lambda: None) == (0, "", "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("expected a,\ngot b: do c"), "expected a, got b: do c"),
        (FileNotFoundError(2, "No such file or directory", "a.png"), "[Errno 2] No such file or directory: 'a.png'"),
        (OSError("expected to write a, got: full"), "expected to write a, got: full"),
        (SafetensorError("header too large"), "header too large"),
        (csv.Error("field"), "field"),
        (zlib.error("stream"), "stream"),
        (EOFError(), "EOFError"),
        (Image.DecompressionBombError("bomb"), "bomb"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "strange"), "'utf-8' codec can't decode"),
    ],
)
def test_what_users_can_mend_is_one_line(capsys, monkeypatch, error, line):
    code, out, err = ask(capsys, monkeypatch, fail(error))
    assert (code, out) == (2, "")
    assert err.startswith(f"swd-test: error: {line}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("error", [KeyError("a"), ValueError("no line of ours"), RuntimeError("x"), AssertionError()])
def test_faults_show_where_they_are_and_ask_to_report(capsys, monkeypatch, error):
    code, out, err = ask(capsys, monkeypatch, fail(error))
    assert (code, out) == (1, "")
    assert "Traceback" in err
    assert "in command" in err
    assert err.endswith(f"swd-test: {REPORT}\n")


def test_ctrl_c_is_one_line(capsys, monkeypatch):
    def command():
        raise KeyboardInterrupt

    monkeypatch.delenv("SWD_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as caught:
        shell("swd-test", command)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "swd-test: interrupted; what is done is kept\n"


def test_a_command_may_explain_what_it_knows(capsys, monkeypatch):
    def explain(error):
        return "expected memory,\n got none" if isinstance(error, MemoryError) else None

    assert ask(capsys, monkeypatch, fail(MemoryError()), explain) == (
        2,
        "",
        "swd-test: error: expected memory, got none\n",
    )
    assert ask(capsys, monkeypatch, fail(KeyError("a")), explain)[0] == 1


@pytest.mark.parametrize("error", [ValueError("expected a, got b"), KeyError("a")])
def test_every_error_shows_its_traceback_where_asked(monkeypatch, error):
    monkeypatch.setenv("SWD_TRACEBACK", "1")
    with pytest.raises(type(error)) as caught:
        shell("swd-test", fail(error))
    assert caught.value is error


def test_exit_codes_of_a_process():
    for body, env, code, lines in (
        ("raise ValueError('expected a, got b')", {}, 2, 1),
        ("raise ValueError('expected a, got b')", {"SWD_TRACEBACK": "1"}, 1, None),
    ):
        process = start(body, **env)
        _, err = process.communicate()
        assert process.returncode == code
        assert "Traceback" in err if lines is None else err.count("\n") == lines


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break otherwise there")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("body", ["print('x' * 70000)\nprint('y')", "return 'x'"])
def test_a_reader_that_leaves_is_no_error(body, unbuffered):
    process = start("sys.stdin.readline()\n" + body, PYTHONUNBUFFERED=unbuffered)
    process.stdout.close()
    process.stdin.close()
    with process.stderr as stderr:
        assert stderr.read() == ""
    assert process.wait() == 0


def test_a_broken_pipe_to_another_is_an_error(capsys, monkeypatch):
    code, _, err = ask(capsys, monkeypatch, fail(BrokenPipeError(32, "Broken pipe")))
    assert (code, err) == (2, "swd-test: error: [Errno 32] Broken pipe\n")


def test_a_line_holds_nothing_that_a_terminal_obeys(capsys):
    def fail():
        raise ValueError("expected a name, got \x1b[2J\x07\r\nswd: \udc80 é \u202e")

    with pytest.raises(SystemExit):
        shell("swd", fail)
    assert capsys.readouterr().err == "swd: error: expected a name, got \\x1b[2J\\x07 swd: \\udc80 é \\u202e\n"


def test_a_device_that_is_full_is_one_line_with_advice():
    from swd_data.errors import out_of_memory

    explain = out_of_memory("pass a smaller --batch")
    full = type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory")
    assert explain(full) == "expected what fits the device, got CUDA out of memory: pass a smaller --batch"
    assert explain(RuntimeError("another")) is None
