"""Train students of the embedded teachers, seed by seed, and compare them with their teacher.

`uv run --group benchmarks python -m benchmarks.studies.students` does what is missing and writes the page and the
pictures of benchmarks/results; `--of clips` does so for the video teacher. Each row and seed is one file there:
committed, it is not computed again, on whatever machine.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from benchmarks.provenance import fingerprint
from benchmarks.studies.catalogue import STUDIES
from benchmarks.studies.pages import NUM_PICTURED, OVER_FULL, PER_ROW, save_sheet, write
from benchmarks.studies.records import LOOKS, Record, path_of, recorded, slug
from benchmarks.studies.study import SEEDS, STUDENT, Study
from benchmarks.teacher.distances import power_by_cycles, stills
from benchmarks.teacher.score import (
    Sampler,
    drawn_sampler,
    reference_samplers,
    sample_all,
    score,
    unseen_prompts,
)
from benchmarks.teacher.spread import repeated, spread
from swd_data import whole_folder
from swd_distill.config import Base, Config
from swd_distill.data.cache import MANIFEST
from swd_distill.data.encode import encode
from swd_distill.data.generate import generate
from swd_distill.folder import settled
from swd_distill.run import run
from swd_models.loading import resolve_model
from swd_models.logs import quiet
from swd_models.parts import Media
from swd_sample import SwDPipeline

RESULTS = Path("benchmarks/results")


def train_student(study: Study, name: str, seed: int, work: Path) -> tuple[Config, float]:
    """Train a student unless its run is finished; return its config and the minutes spent on it in all.

    The teacher's samples of a seed are the same for every student of the same prompts over its base: made once, copied,
    and counted for each. So is the cache of the same sizes, which is not counted.
    """
    config = _config_of(study, name, seed, work)
    training = replace(study.base.training, base=config.training.base)
    source = replace(study.base, data=study.most_data(config.data.prompts), training=training, seed=seed)
    source = replace(source, out=work / f"{slug(source.model)}-teacher{_few(config)}-{training.base}-{seed}")
    listed = source.images / "metadata.jsonl"
    shared = _timed(source.out, listed, lambda: generate(source))
    shared *= config.data.num_images / len(listed.read_text().splitlines())
    if not config.images.is_dir():
        _copy(source.images, config.images, listed.name)
    generate(config)  # which notes how many of them are its own
    encoding = _for_all_schedules(config, work)
    if not config.cache.is_dir():
        _copy(encode(encoding), config.cache, MANIFEST)
    own = _timed(config.out, config.out / "lora", lambda: run(config))
    return config, own + shared


def _copy(folder: Path, to: Path, marker: str) -> None:
    """Copy a folder, whole or not at all: that it is there means that it is done."""
    with whole_folder(to, marker) as temporary:
        shutil.copytree(folder, temporary, dirs_exist_ok=True)


def _config_of(study: Study, name: str, seed: int, work: Path) -> Config:
    return settled(replace(study.students[name], seed=seed, out=work / study.page / f"{slug(name)}-{seed}"))


def _few(config: Config) -> str:
    """Name the prompts of a student, where they are not all of them."""
    return f"-{config.data.prompts.stem}" if config.data.prompts else ""


def _for_all_schedules(config: Config, work: Path) -> Config:
    """Return the config that encodes a seed's images once for all schedules of the same sizes."""
    sizes = "-".join(sorted({"x".join(map(str, size)) for size in config.scales.sizes}))
    data = f"{config.data.num_images}{_few(config)}"
    name = f"cache-{slug(config.model)}-{config.training.base}-{data}-{sizes}-{config.seed}"
    return replace(config, data=replace(config.data, images=config.images), out=work / name)


def _timed(folder: Path, result: Path, work: Callable[[], object]) -> float:
    """Work unless the result is there; return the minutes spent in all, interrupted or not."""
    clock, began = folder / "seconds.json", time.monotonic()
    spent = float(json.loads(clock.read_text())) if clock.is_file() else 0.0
    if not result.exists():
        try:
            work()
        finally:
            spent += time.monotonic() - began
            folder.mkdir(parents=True, exist_ok=True)
            clock.write_text(json.dumps(spent))
    return spent / 60


def measure(study: Study, name: str, sample: Sampler, captions: Sequence[str], seed: int, sheet: Path) -> Record:
    """Score a sampler; the first seed's samples of the first captions are kept as a sheet, for the pictures."""
    model, label, first = study.base.model, f"{name}, seed {seed}", 10_000 * (seed + 1)
    if seed == 0:
        few = captions[: min(NUM_PICTURED, len(set(captions)))]  # each may come several times
        sheet.parent.mkdir(parents=True, exist_ok=True)
        save_sheet([item for i in range(0, len(few), PER_ROW) for item in sample(few[i : i + PER_ROW], i)], sheet)
    samples = sample_all(sample, captions, label, first)
    record: Record = {"scores": score(samples, captions, model)}
    if study.looks:
        again = repeated(captions)
        record["power"] = power_by_cycles(samples, captions, model)
        record["spread"] = spread(stills(sample_all(sample, again, f"{label}, again", first)), again, model)
    return record


def measure_all(study: Study, args: argparse.Namespace) -> dict[str, list[Record]]:
    """Train and score what is missing, references first; return the records of each row, one a seed."""
    base = study.base
    captions = study.repeats * unseen_prompts(base.model, args.count)
    teacher = fingerprint(Path(resolve_model(base.model)))
    steps, guidance = base.data.teacher_steps, base.data.teacher_guidance
    samplers = reference_samplers(base.model, base.scales, steps, guidance)
    if study.looks:
        samplers = drawn_sampler(base.model) | samplers
    of: Record = {"teacher": teacher, "prompts": len(captions)}
    reference = of | {"schedule": json.loads(base.scales.to_json()), "steps": steps, "guidance": guidance}
    rows: dict[str, list[Record]] = {}
    needs = LOOKS if study.looks else ()
    names, chosen = args.students or study.students, args.seeds or SEEDS
    seeds_of = {name: args.seeds or range(study.seeds.get(name, len(SEEDS))) for name in names}
    for seed in sorted({*chosen, *chain(*seeds_of.values())}):
        for name, sample in samplers.items() if seed in chosen else ():
            path = path_of(study, args.out, name, seed)
            make = partial(measure, study, name, sample, captions, seed, path.with_suffix(".png"))
            rows.setdefault(name, []).append(recorded(path, reference | {"seed": seed}, make, needs=needs))
        for name in (name for name in names if seed in seeds_of[name]):
            config = _config_of(study, name, seed, args.work)
            student = of | {"config": config.to_json() | {"out": None}}
            for judged in dict.fromkeys((config.training.base, "bf16")):
                row, over = f"{STUDENT}{name}", {}
                if judged != config.training.base:
                    row, over = f"{row}{OVER_FULL}", {"judged over": judged}
                path = path_of(study, args.out, row, seed)
                sheet = path.with_suffix(".png")
                make = partial(_train_and_measure, study, name, captions, seed, args.work, sheet, judged)
                rows.setdefault(row, []).append(recorded(path, student | over, make, needs=needs))
    return rows


def _train_and_measure(
    study: Study, name: str, captions: Sequence[str], seed: int, work: Path, sheet: Path, base: Base
) -> Record:
    config, minutes = train_student(study, name, seed, work)
    pipe = SwDPipeline.from_run(config.out, base=base)

    def sample(few: Sequence[str], first_seed: int) -> list[Media]:
        return pipe(few, seed=first_seed)

    return measure(study, name, sample, captions, seed, sheet) | {"minutes": minutes}


def main(argv: Sequence[str] | None = None) -> None:
    """Train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--of", choices=list(STUDIES), default="scenes", help="the study")
    parser.add_argument("--work", type=Path, default=Path("runs/students"), help="the runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="table, pictures, records")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 1 2, and more of students that need them")
    parser.add_argument("--students", nargs="+", help="some of its students (default: all)")
    parser.add_argument("--count", type=int, help="prompts (default: all)")
    args = parser.parse_args(argv)
    study = STUDIES[args.of]
    if unknown := set(args.students or ()) - set(study.students):
        parser.error(f"expected --students of {', '.join(study.students)}, got {', '.join(unknown)}")
    if args.count and args.out == RESULTS:
        parser.error(f"expected --out with --count, for {RESULTS} has the records of all prompts, got none")
    quiet()
    print(write(study, measure_all(study, args), args).read_text())


if __name__ == "__main__":
    main()
