"""The paper's claims again where they cost something: on the large teacher, 256 tokens at the top."""

from dataclasses import replace

from benchmarks.large_teacher.pipeline import TRAINED
from benchmarks.studies.claims import TINY, claims_of_schedules, full
from benchmarks.studies.study import Claim, Study

GROWING = "1000:12x12,896:16x16,737:24x24,602:32x32"
MMD = replace(
    TINY,
    name="large",
    model=str(TRAINED),
    schedule=GROWING,
    data=replace(TINY.data, num_images=4000),
    training=replace(TINY.training, iterations=1000, sample_every=1000, rank=64, block=4),
)
LARGE = Study(
    "large",
    "The paper's claims on the large teacher",
    {
        "scale-wise, 4 steps": MMD,
        "full scale, 4 steps": replace(MMD, schedule="1000:32x32,896:32x32,737:32x32,602:32x32"),
        "full scale, 2 steps": replace(MMD, schedule="1000:32x32,737:32x32"),
        "constant 16, then 32": replace(MMD, schedule="1000:16x16,896:16x16,737:16x16,602:32x32"),
        "scale-wise, full loss": full(MMD, 0.12, 0.1, balance_over="run"),
    },
    (
        *claims_of_schedules("constant 16, then 32"),
        Claim("MMD alone is as good as the full loss", "scale-wise, 4 steps", "scale-wise, full loss", margin=0.02),
    ),
    looks=True,
)  # fmt: skip
