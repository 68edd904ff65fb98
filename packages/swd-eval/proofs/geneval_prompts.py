"""GenEval's prompts against its own script, and against its released file where there is one.

    python proofs/geneval_prompts.py GENEVAL

GENEVAL is a checkout: prompts/create_prompts.py and prompts/object_names.txt, both run as they are (they need PyYAML),
and prompts/evaluation_metadata.jsonl.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from swd_eval.geneval.prompts import SHA256, draw_prompts


def main() -> None:
    """Print the size and the SHA-256 of each, and whether it is ours."""
    checkout = Path(sys.argv[1]).resolve()
    ours = "".join(json.dumps(row) + "\n" for row in draw_prompts()).encode()
    released = checkout / "prompts" / "evaluation_metadata.jsonl"
    found = {"ours": ours}
    if released.is_file():
        found["released file"] = released.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "prompts/create_prompts.py", "-o", folder]
        subprocess.run(command, cwd=checkout, check=True)
        found["original script"] = (Path(folder) / released.name).read_bytes()
    print(f"NumPy {np.__version__}")
    for name, data in found.items():
        about = f"{len(data.splitlines())} lines, {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}"
        print(f"{name}: {about}, {'the same' if data == ours else 'ANOTHER'}")
    assert hashlib.sha256(ours).hexdigest() == SHA256


if __name__ == "__main__":
    main()
