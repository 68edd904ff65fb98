"""Hours of a run's stages, by a data sheet."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swd_distill.planning.estimate import Estimate
    from swd_distill.planning.pieces import Piece
    from swd_distill.planning.roofline import Gpu


def stage_hours(found: "Estimate", gpu: "Gpu", gpus: int) -> dict[str, float]:
    """Return the hours of generate, encode and train, as far as a run has them and they were counted."""
    config, data, around = found.config, found.config.data, found.counts.around
    hours = {}
    if data.images is None:
        forward = found.full.pieces["forward"].work
        step = gpu.seconds(forward, data.batch * found.counts.facts["passes"]).total() / data.batch
        image = data.teacher_steps * step + sum(_each(around.get(name), gpu, data.batch) for name in ("text", "decode"))
        hours["generate"] = data.num_images * image / gpus / 3600
    if around and not data.on_the_fly:
        cached = sum(_each(around.get(name), gpu, data.batch) for name in ("encode", "text"))
        hours["encode"] = data.num_images * cached / gpus / 3600
    hours["train"] = found.training_seconds(gpu) * config.training.accumulate / 3600
    return hours


def _each(piece: "Piece | None", gpu: "Gpu", batch: int) -> float:
    return gpu.seconds(piece.work, batch).total() / batch if piece else 0.0
