import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

import swd_data

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for name, width, text in (("1", 600, "a cat"), ("2", 300, "too small"), ("10", 512, "a dog")):
        Image.new("RGB", (width, 512), "red").save(f"data/{name}.png")
        Path(f"data/{name}.txt").write_text(text)
    trained = []
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(code, {"train": lambda pixels, prompt: trained.append((pixels.shape, pixels.dtype, prompt))})
    assert trained == [((512, 512, 3), np.uint8, "a cat"), ((512, 512, 3), np.uint8, "a dog")]
    (row,) = map(json.loads, Path("skipped.jsonl").read_text().splitlines())
    assert row == {
        "file_name": "2.png",
        "reason": "expected at least 512x512 pixels in 2.png, got 300x512: leave it out, or take a larger copy",
    }


def test_every_room_is_listed():
    rooms = {path.name for path in Path(swd_data.__file__).parent.glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"^\| `(\w+\.py)`", README, re.MULTILINE)) == rooms
