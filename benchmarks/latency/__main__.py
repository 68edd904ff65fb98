"""Latency by appendix G: half precision, compiled, TinyVAE, batch 8, 100 runs after warm-up.

`python -m benchmarks.latency` writes latency-DEVICE.json and .md. On a GPU the paper's models at full size: from the
hub where it answers (tens of GB; HF_HUB_OFFLINE=1 asks it nothing), else with random weights, which take as long.
Without one, tiny models on the CPU, and a page that says so.
"""

import argparse
import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.latency.bench import bench
from benchmarks.latency.flops import step_flops
from benchmarks.latency.models import full_size, tiny
from benchmarks.latency.paper import TABLE_4, reckon
from benchmarks.latency.report import page
from benchmarks.latency.rows import SCALEWISE, TINY, rows, schedules
from benchmarks.provenance import provenance, written
from swd_models.logs import quiet


def reckoned() -> dict[str, Any]:
    """Count the paper's models, and reckon table 4."""
    found = {}
    for name in TABLE_4:
        few, many = (step_flops(name, schedules(name)[row]) for row in ("scale-4", "full-4"))
        found[name] = {"flops": few, "ratio": sum(few) / sum(many), "seconds": reckon(name)}
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Time, and write."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    known = SCALEWISE if on_gpu else TINY
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=list(known), default=list(known))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--runs", type=int, default=100 if on_gpu else 20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument(
        "--tiny", type=Path, help="on a GPU: weights of the TinyVAE that decodes; its family's --models"
    )
    parser.add_argument("--no-compile", action="store_true", help="on a GPU; the CPU never compiles")
    args = parser.parse_args(argv)
    quiet()
    compiled = on_gpu and not args.no_compile
    settings = {"models": args.models, "batch": args.batch, "runs": args.runs, "compile": compiled}
    settings |= {"device": device.type, "dtype": "float16" if on_gpu else "float32"}
    record = provenance(settings) | {"models": {}, "reckoned": reckoned()}
    with written(record, len(args.models), page, args.out / f"latency-{device.type}"):
        for name in args.models:
            model = full_size(name, device, tiny=args.tiny) if on_gpu else tiny(name)
            record["models"][name] = bench(model, rows(name), batch=args.batch, runs=args.runs, compiled=compiled)
            del model  # the next one may need the memory
            torch._dynamo.reset()
            gc.collect()
            if on_gpu:
                torch.accelerator.empty_cache()


if __name__ == "__main__":
    main()
