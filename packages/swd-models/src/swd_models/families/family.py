"""What makes a family: its classes of diffusers, ours around them, and how their parts load."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import DDIMScheduler
from transformers import PreTrainedModel

from swd_models.denoiser import Denoiser
from swd_models.known.facts import Config, Expert, Facts
from swd_models.parts import Latents, Teacher, Text
from swd_models.quantized import Base, check_quantised, freeze, loading, quantised_layers


@dataclass(frozen=True)
class Family:
    """The classes of a family.

    Attributes:
        pipeline, backbone, vae: Classes of diffusers.
        denoiser, latents, text: Ours around backbone, autoencoder and whole pipeline.
        facts: What configs tell of it.
        vae_dtype: Of the autoencoder where it must not be the model's.
        vae_overflows: Whether numbers in the autoencoder are too large for float16, unless its config says otherwise.
        check_scheduler: Refuses a model whose scheduler is of another process than the denoiser's.
        options: For the pipeline's `from_pretrained`.
    """

    pipeline: Any
    backbone: Any
    denoiser: type[Denoiser]
    vae: Any
    latents: Callable[[Any], Latents]
    text: type[Text]
    facts: Facts
    vae_dtype: torch.dtype | None = None
    vae_overflows: bool = False
    check_scheduler: Callable[[str, Mapping[str, Any]], None] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def load_config(self, model: str) -> dict[str, Any]:
        """Load the backbone's config alone."""
        config: dict[str, Any] = self.backbone.load_config(model, subfolder=self.denoiser.subfolder)
        if not isinstance(config, dict):
            raise ValueError(f"expected the config of a denoiser in {model}, got {config!r:.40}")
        return config

    def build_empty(self, config: Config) -> Denoiser:
        """Build the denoiser of a config on the meta device: names and shapes without weights."""
        with torch.device("meta"):
            return self._wrap(self.backbone.from_config(config))

    def load_denoiser(
        self,
        model: str,
        expert: Expert = Expert(),  # noqa: B008, which is frozen
        *,
        base: Base = "bf16",
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> Denoiser:
        """Load a denoiser alone; a quantised one layer by layer onto the device."""
        denoiser = self._load_denoiser(model, expert.subfolder or self.denoiser.subfolder, base, device, options)
        denoiser.expert = expert
        return denoiser

    def _load_denoiser(
        self, model: str, subfolder: str, base: Base, device: torch.device | str, options: dict[str, Any]
    ) -> Denoiser:
        options = {"dtype": torch.float32} | options
        if options["dtype"] == torch.float16 and not self.denoiser.takes_float16:
            raise ValueError(
                f"expected bfloat16 or float32 for {self.denoiser.family}, whose numbers are too large for float16, "
                "got float16: pass --training.dtype float32 (swd-distill) or --device cpu, or take a GPU with bfloat16"
            )
        kept = self.backbone.load_config(model, subfolder=subfolder)
        if "quantization_config" in kept:
            found = kept["quantization_config"]
            by = found.get("quant_method") if isinstance(found, Mapping) else None
            raise ValueError(
                f"expected a whole {subfolder} in {model}, got one quantised by {by or 'another library'}: take the "
                "original, with --base (swd-sample) or --training.base (swd-distill) int8 or nf4"
            )
        if self.check_scheduler and (not Path(model).is_dir() or (Path(model) / "scheduler").is_dir()):
            self.check_scheduler(model, DDIMScheduler.load_config(model, subfolder="scheduler"))  # of whatever class
        if base == "bf16":
            return self._wrap(_load_whole(self.backbone, model, subfolder, **options).eval())
        names = quantised_layers(self.build_empty(self.load_config(model)))
        with loading(names, base, options["dtype"], torch.device(device)) as quantised:
            backbone = _load_whole(self.backbone, model, subfolder, **options, **quantised).eval()
        denoiser = freeze(self._wrap(backbone))
        check_quantised(denoiser, base)
        return denoiser

    def load_latents(self, model: str, **options: Any) -> Latents:
        """Load the autoencoder alone."""
        vae = self._load_vae(model, **options)
        if self.vae_overflows and vae.dtype == torch.float16 and vae.config.force_upcast:
            vae = vae.float()  # the pipeline of a teacher does so by itself
        return self.latents(vae)

    def load_text(
        self,
        model: str,
        num_tokens: int | None = None,
        experts: Sequence[Expert] = (Expert(),),
        **options: Any,
    ) -> Text:
        """Load text encoders and tokenizers alone; `num_tokens` as of `Text`."""
        denoiser = self.denoiser.subfolder
        left_out = {each.subfolder or denoiser: None for each in experts}
        pipe = self._load_pipeline(model, {"vae": None} | left_out, **options)
        # SD3's `encode_prompt` reads the width of a left-out T5 from the transformer's config.
        pipe.register_modules(**{denoiser: self.build_empty(self.load_config(model)).backbone})
        return self.text(pipe, num_tokens)

    def load_teacher(self, model: str, denoiser: Denoiser, num_tokens: int | None = None, **options: Any) -> Teacher:
        """Load the whole pipeline around its denoiser, or the experts of one; `num_tokens` as of `Text`."""
        parts = {each.folder: each.backbone for each in denoiser.experts}
        parts["vae"] = self._load_vae(model, **options)
        pipe = self._load_pipeline(model, parts, **options)
        teacher = Teacher(pipe, self.latents(pipe.vae), denoiser.layers, self.text(pipe, num_tokens))
        teacher.denoiser = denoiser
        return teacher

    def _load_vae(self, model: str, **options: Any) -> Any:
        dtype = {"dtype": self.vae_dtype} if self.vae_dtype else {}
        return _load_whole(self.vae, model, "vae", **options | dtype)

    def _wrap(self, backbone: Any) -> Denoiser:
        wrap: Callable[[Any], Denoiser] = self.denoiser  # a family's class takes the backbone alone
        return wrap(backbone)

    def _load_pipeline(self, model: str, parts: Mapping[str, Any], **options: Any) -> Any:
        """Load a pipeline around some parts; those that the model itself leaves out must be named."""
        index: Mapping[str, Any] = self.pipeline.load_config(model)
        left_out = {name: None for name, value in index.items() if value == [None, None]}
        known = left_out | dict(parts) | dict(self.options)
        encoders = {
            name: _load_whole(kind, model, name, **{"dtype": None} | options)
            for name, kind in _encoders(index).items()
            if name not in known
        }
        return self.pipeline.from_pretrained(model, **known | encoders, **options)


def _encoders(index: Mapping[str, Any]) -> dict[str, type[PreTrainedModel]]:
    """Return the classes of what a pipeline has of transformers with weights, by their folders."""
    kinds = {
        name: getattr(transformers, str(value[1]), None)
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and value[0] == "transformers"
    }
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, PreTrainedModel)}


_SCALES = re.compile(r"(scale_weight|weight_scale\w*|scale_input|input_scale|scaled_fp8|absmax|\.SCB)$")


def _load_whole(kind: Any, model: str, subfolder: str, **options: Any) -> Any:
    """Load a part of which nothing is missing: libraries fill with random numbers what a file does not have.

    Nor are there scales of weights in 8 bits, which libraries would leave out.
    """
    part, info = kind.from_pretrained(model, subfolder=subfolder, output_loading_info=True, **options)
    scales = sorted(key for key in info["unexpected_keys"] if _SCALES.search(key))
    if scales:
        raise ValueError(
            f"expected whole weights of {subfolder} in {model}, got such with scales ({scales[0]}): take the original"
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(
            f"expected all weights of {subfolder} in {model}, got none for {missing[0]}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + ": download it again, or choose another model"
        )
    return part
