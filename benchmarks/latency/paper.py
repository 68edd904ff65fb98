"""Table 4, and what counted FLOPs make of it: seconds = overhead + cost of a full step x steps in full steps."""

from benchmarks.latency.flops import step_flops
from benchmarks.latency.rows import schedules

# Table 4: seconds an image on an A100, half precision, compiled, TinyVAE, batch 8, mean of 100 runs.
TABLE_4 = {
    "sd35-medium": {"full-4": 0.29, "full-2": 0.16, "scale-6": 0.19, "scale-4": 0.17},
    "sd35-large": {"full-4": 0.63, "full-2": 0.33, "scale-6": 0.41, "scale-4": 0.32},
    "flux": {"full-4": 1.41, "full-2": 0.72, "scale-6": 0.97, "scale-4": 0.72},
    "wan": {"full-4": 5.51, "full-2": 2.97, "scale-6": 2.61, "scale-4": 1.84},
}


def reckon(name: str) -> dict[str, float]:
    """Return table 4's rows of a model from the paper's own full-scale rows and counted FLOPs.

    Its four steps less its two cost two full steps; what two steps leave over is the same for every row.
    """
    paper = TABLE_4[name]
    cost = (paper["full-4"] - paper["full-2"]) / 2
    overhead = paper["full-2"] - 2 * cost
    found = {row: step_flops(name, schedule) for row, schedule in schedules(name).items()}
    return {row: overhead + cost * sum(flops) / flops[-1] for row, flops in found.items()}
