"""Commands that users are told to type."""

from swd_data import typed


def test_a_command_is_typed_as_the_one_before(monkeypatch):
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    assert typed("swd-sample", "runs/tiny", "a cat's hat") == """swd-sample runs/tiny 'a cat'"'"'s hat'"""
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert typed("swd-sample", "runs/tiny") == "uv run swd-sample runs/tiny"
