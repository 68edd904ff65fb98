"""What may be a name on the hub, and what is a path that was mistyped."""

import pytest

from swd_data import is_hub_id


@pytest.mark.parametrize(
    ("text", "suffix", "expected"),
    [
        ("ann/style", "", True),
        ("ann/style", ".safetensors", True),
        ("ann/style/file.safetensors", ".safetensors", True),
        ("ann/style/file.safetensors", "", False),
        ("ann/file.safetensors", ".safetensors", False),
        ("runs/other", "", True),  # a folder may be called as its owner on the hub
        ("runs/tiny/export/lora.safetensors", ".safetensors", False),
        ("style", "", False),
        ("runs/tiny", "", False),  # which is here
    ],
)
def test_a_name_of_the_hub(tmp_path, monkeypatch, text, suffix, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    assert is_hub_id(text, suffix) == expected
