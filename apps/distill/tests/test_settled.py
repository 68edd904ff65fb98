"""What a device decides of a run, the same in all its processes."""

import json

import pytest

from swd_distill import folder


@pytest.mark.parametrize("noted", [None, "adamw", "adamw-8bit"])
def test_the_main_process_settles_the_optimizer_whether_a_file_is_there_or_not(configure, tmp_path, monkeypatch, noted):
    """One that came late may see the file that the main process has written: all must ask it alike."""
    asked = []
    monkeypatch.setattr(folder, "from_main", lambda value: (asked.append(value), "adamw-8bit")[1])
    if noted:
        (tmp_path / "config.json").write_text(json.dumps({"training": {"optimizer": noted}}))
    assert folder.settled(configure(tmp_path)).training.optimizer == "adamw-8bit"
    assert asked == [noted or "adamw"]
