import subprocess
import sys
from pathlib import Path

import swd_eval

EXTRAS = (
    "scipy", "nltk", "transformers", "safetensors", "huggingface_hub", "efficientnet_lite_pytorch", "pyarrow", "pandas",
    "torchvision", "torch_fidelity", "skimage", "tyro", "matplotlib", "av", "accelerate",
)  # fmt: skip
SOURCE = Path(swd_eval.__file__).parent
APART = {"cli", "commands", "__main__", "study"}  # the command line, and the study: extras


def output_of(code):
    return subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout


def test_metrics_import_with_torch_numpy_pillow_and_tqdm_alone():
    blocked = f"import sys, torch\nfor name in {EXTRAS}: sys.modules[name] = None\n"
    files = [path.relative_to(SOURCE.parent).with_suffix("") for path in SOURCE.rglob("*.py")]
    imports = "".join(f"import {'.'.join(file.parts)}\n" for file in files if file.parts[1] not in APART)
    run = """
from pathlib import Path
try:
    swd_eval.runs.evaluate.evaluate(Path("."), Path("out"), ["fid"])
except ValueError as error:
    print(error)
"""
    assert output_of(blocked + imports + run).startswith("expected --metrics of images, got ")


def test_a_metric_without_its_extra_says_which():
    code = """
from pathlib import Path
from swd_eval import measure
measure.find_spec = lambda name: None
from swd_eval.distances.features import open_space
from swd_eval.scores.hpsv3 import hpsv3
for run in (lambda: open_space("lite0", Path("."), "cpu"), lambda: hpsv3(Path("."), "cpu")):
    try:
        run()
    except ValueError as error:
        print(error)
"""
    assert output_of(code).splitlines() == [
        "expected the extra lite0, got no module efficientnet_lite_pytorch: install swd-eval[lite0]",
        "expected the extra clip, got no module transformers: install swd-eval[clip]",
    ]
