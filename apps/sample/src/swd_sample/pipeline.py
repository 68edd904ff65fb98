"""The scale-wise sampler as a pipeline: prompts in, images or videos out."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor

from swd_data import read_object
from swd_models import Denoiser, load_denoiser, load_latents, load_lora, load_text
from swd_models.compiling import compile_layers
from swd_models.loading import check_fit, first_device
from swd_models.lora.files import lora_of, text_tokens_of
from swd_models.parts import Latents, Media, Text, expand, trim
from swd_models.placing import decode_in_tiles, fits, place
from swd_models.quantized import Base, check_base
from swd_sample.media import to_media
from swd_schedules import ScaleSchedule, Stage, scalewise_stages
from swd_schedules.devices import default_dtype, find_device, use_device

Callback = Callable[["SwDPipeline", int, float, dict[str, Tensor]], object]
TEACHER = (28, 4.5)
"""Steps and guidance that are usual for a teacher."""


class SwDPipeline:
    """Text, a denoiser with its LoRA, latents and a schedule.

    Examples:
        >>> pipe = SwDPipeline.from_run("runs/tiny")
        >>> pipe("a big red circle at the left, green background", seed=0)[0].save("circle.png")
    """

    def __init__(self, denoiser: Denoiser, text: Text, latents: Latents, schedule: ScaleSchedule) -> None:
        self.denoiser, self.text, self.latents, self.schedule = denoiser, text, latents, schedule
        self.device, self._clear = next(denoiser.parameters()).device, _nothing
        self._trims, self.one_at_a_time = True, False
        self.learnt: ScaleSchedule | None = None  # what the LoRA says that it was trained with

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        *,
        lora: Path | str | None = None,
        base_loras: Sequence[str] = (),
        schedule: ScaleSchedule | None = None,
        fallback: ScaleSchedule | None = None,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        base: Base = "bf16",
        merge: bool = True,
        text_tokens: int | None = None,
        tiny: Path | str | None = None,
    ) -> Self:
        """Load a base model and the student's LoRA; the schedule is the LoRA's own unless given, or else `fallback`.

        So are `text_tokens`, to which `load_text` cuts or pads prompts, or else those of the model's own pipeline.
        The LoRA is added to the weights (in float32, then cast), so that it costs nothing in sampling; with `merge` off
        it stays apart, as it does over a quantised `base` (int8, fp8 or nf4: see `load_denoiser`). `base_loras`, each
        PATH or PATH:WEIGHT, are merged into the base before. `device` is the accelerator that torch finds, unless
        named, and `dtype` what its weights usually have. `tiny`, the weights of a tiny autoencoder such as TAESD,
        decodes instead of the model's own: faster, with less detail. Where text encoders, denoiser and autoencoder do
        not fit the device together, each is there while it works.
        """
        where = find_device(device or "auto")
        use_device(where)
        options: dict[str, Any] = {"dtype": dtype or default_dtype(where)}
        first = first_device(model, base, where)
        denoiser = load_denoiser(model, loras=base_loras, base=base, device=first, **options)
        carried = load_lora(denoiser, lora, merge=merge and base == "bf16") if lora else None
        chosen = schedule or carried or fallback
        if chosen is None:
            raise ValueError(f"expected a schedule, got none{f' in the metadata of {lora}' if lora else ''}: pass one")
        check_fit(model, chosen.sizes)
        text, latents = load_text(model, text_tokens, **options), load_latents(model, tiny=tiny, **options)
        if text.takes_tokens and text_tokens is None and lora:
            text.num_tokens = text_tokens_of(lora_of(lora, denoiser.experts[0].expert.name))
        pipe = cls(denoiser, text, latents, chosen)
        pipe.learnt = carried
        pipe.device = where
        parts = [*text.encoders, *denoiser.experts, latents.vae]
        pipe.one_at_a_time = not fits(parts, where)
        pipe._clear = place(parts, where)
        return pipe

    @classmethod
    def from_run(
        cls,
        run: Path | str,
        *,
        base: Base | None = None,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        merge: bool = True,
    ) -> Self:
        """Load the student of a run folder, over the base that it was trained over unless another is given."""
        return cls.from_pretrained(
            model_of(run),
            lora=Path(run) / "lora",
            base_loras=base_loras_of(run),
            base=base or base_of(run),
            device=device,
            dtype=dtype,
            merge=merge,
        )

    def compile(self, backend: str = "inductor") -> int:
        """Compile the blocks, each kind once for each size; return the most compilations that there will be."""
        self._trims = False  # a length of text more would be a shape more
        return compile_layers(self.denoiser.layers, backend, 2 * len(set(self.schedule.sizes)))

    @property
    def fps(self) -> int | None:
        """Return the frames a second of its videos; None: it makes images."""
        return self.denoiser.fps

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        num_images_per_prompt: int = 1,
        seed: int = 0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        guidance_scale: float = 1.0,
        schedule: ScaleSchedule | None = None,
        callback_on_step_end: Callback | None = None,
    ) -> list[Media]:
        """Sample images or videos of a prompt, or of each of several: in their order, those of one beside each other.

        Sample i has the seed `seed + i`, whatever the batch, unless generators are given. `guidance_scale` above 1 is
        for undistilled models, a student needs none: it adds unconditional passes, or is told to a guidance-distilled
        model, which runs once. `callback_on_step_end(pipe, index, timestep, {"latents": x0})` is called with what each
        step predicts, as diffusers does; what it returns changes nothing.

        Raises:
            ValueError: no prompt, one that is no text, or another number of generators than of samples.
        """
        prompts = _repeated(prompt, num_images_per_prompt)
        options: dict[str, Any] = {"seed": seed, "generator": generator, "guidance_scale": guidance_scale}
        for stage, x0 in self.stages(prompts, schedule=schedule, **options):
            if callback_on_step_end is not None:
                callback_on_step_end(self, stage.index, 1000 * stage.sigma, {"latents": x0})
        return self.decode(x0)

    @torch.no_grad()
    def decode(self, x0: Tensor) -> list[Media]:
        """Return the images or videos of latents (B, C, *size), one at a time or in tiles if the device is small."""
        self._clear()
        decode_in_tiles(self.latents, x0.shape[2:], self.device, len(x0))
        media = to_media(self.latents.decode(x0))
        self._clear()
        return media

    @torch.no_grad()
    def stages(
        self,
        prompt: str | Sequence[str],
        *,
        seed: int = 0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        guidance_scale: float = 1.0,
        schedule: ScaleSchedule | None = None,
    ) -> Iterator[tuple[Stage, Tensor]]:
        """Yield each stage with its latents (B, C, *size), for `decode`, when it is done; the last are the samples'.

        Arguments and errors are those of a call.
        """
        prompts, device = _repeated(prompt, 1), self.device
        self._clear()
        generators = generator or [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
        cond = self.text(prompts)
        passes = 1 if guidance_scale == 1.0 else 2
        if passes == 2 and self.denoiser.guidance is not None:
            passes, cond = 1, cond | {"guidance": torch.full((len(prompts),), guidance_scale, device=device)}
        uncond = expand(self.text.uncond(), len(prompts)) if passes == 2 else {}
        if self._trims:
            cond, uncond = trim(cond), trim(uncond)

        def denoise(x_t: Tensor, sigma: Tensor) -> Tensor:
            x0 = self.denoiser.denoise(x_t, sigma, cond)
            if passes == 1:
                return x0
            return self.denoiser.guide(x_t, sigma, x0, self.denoiser.denoise(x_t, sigma, uncond), guidance_scale)

        yield from scalewise_stages(
            denoise,
            schedule or self.schedule,
            (len(prompts), self.denoiser.num_channels),
            process=self.denoiser.process,
            generator=generators,
            device=device,
        )


def _repeated(prompt: str | Sequence[str], times: int) -> list[str]:
    """Return one prompt or several as a list, each so many times."""
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    other = next((each for each in prompts if not isinstance(each, str)), None)
    if not prompts or other is not None:
        raise ValueError(f"expected a prompt, or several, as text, got {'none' if other is None else repr(other)}")
    if times < 1:
        raise ValueError(f"expected num_images_per_prompt of at least 1, got {times}")
    return [each for each in prompts for _ in range(times)]


def _nothing() -> None:
    """Clear nothing: all parts stay where they are."""


def base_loras_of(run: Path | str) -> tuple[str, ...]:
    """Return the LoRA files that the teacher of a run has, PATH or PATH:WEIGHT."""
    found = read_object(Path(run) / "config.json", "the config of a run").get("teacher_lora", [])
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError(f"expected the config.json of a run in {run}, got teacher_lora {found!r:.40}")
    return tuple(found)


def base_of(run: Path | str) -> Base:
    """Return how a run held its base; those of before held it whole."""
    training = read_object(Path(run) / "config.json", "the config of a run").get("training", {})
    found = training.get("base", "bf16") if isinstance(training, dict) else None
    check_base(str(found))
    return cast(Base, found)


def taught_with(run: Path | str) -> tuple[int, float]:
    """Return the steps and the guidance of a run's teacher, or what is usual where it says nothing."""
    data = read_object(Path(run) / "config.json", "the config of a run").get("data", {})
    found = data if isinstance(data, dict) else {}
    return int(found.get("teacher_steps", TEACHER[0])), float(found.get("teacher_guidance", TEACHER[1]))


def planned_for(run: Path | str) -> ScaleSchedule | None:
    """Return the schedule that a run's config notes."""
    found = read_object(Path(run) / "config.json", "the config of a run").get("schedule")
    return ScaleSchedule.from_json(json.dumps(found)) if isinstance(found, dict) else None


def model_of(run: Path | str) -> str:
    """Return the base model of a run folder."""
    config = Path(run) / "config.json"
    if not config.is_file():
        raise ValueError(f"expected a run folder with config.json, got {run}")
    data = read_object(config, "the config of a run")
    if not isinstance(data.get("model"), str):
        raise ValueError(f"expected the config.json of a run, got {config}: it names no model")
    return str(data["model"])
