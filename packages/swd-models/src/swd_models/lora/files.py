"""LoRA files in the forms that people use; the schedule travels in the metadata."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from swd_models.denoiser import Denoiser
from swd_schedules import ScaleSchedule

Form = Literal["diffusers", "peft", "comfyui"]
FILES: dict[Form, str] = {
    "diffusers": "pytorch_lora_weights.safetensors",
    "peft": "adapter_model.safetensors",
    "comfyui": "comfyui_lora.safetensors",
}
PEFT_CONFIG, PEFT_PREFIX = "adapter_config.json", "base_model.model"
SCHEDULE_KEY, FAMILY_KEY, CONFIG_KEY = "swd_schedule", "swd_family", "lora_adapter_metadata"
_KEY = re.compile(r"(?P<layer>.+)\.(lora_(?P<kind>A|B|down|up)(\.default)?\.weight|(?P<alpha>alpha))")


@dataclass(frozen=True)
class Lora:
    """Adapters apart from a model: tensors `LAYER.lora_A.weight` (rank, in) and `LAYER.lora_B.weight` (out, rank)."""

    state: dict[str, Tensor]
    alpha: float
    schedule: ScaleSchedule | None = None

    @property
    def rank(self) -> int:
        """Return the rank, which all layers share."""
        ranks = {value.shape[0] if ".lora_A." in key else value.shape[1] for key, value in self.state.items()}
        if len(ranks) != 1:
            raise ValueError(f"expected adapters of one rank, got ranks {sorted(ranks)}")
        return int(ranks.pop())

    @property
    def layers(self) -> list[str]:
        """Return the names of the layers that have adapters."""
        return sorted({key.rpartition(".lora_")[0] for key in self.state})

    def config(self) -> LoraConfig:
        """Return PEFT's config of just these layers: a list would be taken for suffixes, which may match others."""
        alpha = int(self.alpha) if self.alpha == int(self.alpha) else self.alpha
        layers = "|".join(map(re.escape, self.layers))
        return LoraConfig(r=self.rank, lora_alpha=alpha, target_modules=layers, init_lora_weights="gaussian")


def write_lora(lora: Lora, denoiser: Denoiser, folder: Path | str, form: Form = "diffusers") -> Path:
    """Write adapters of the denoiser's family and return the file.

    "diffusers" is what `pipe.load_lora_weights(folder)` reads, "peft" is a PEFT tree as the authors released,
    "comfyui" has the keys that ComfyUI maps, with a scale a layer. Tensors are those of `lora` in every form.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {key: sorted(v) if isinstance(v, set) else v for key, v in lora.config().to_dict().items()}
    metadata = {"format": "pt", FAMILY_KEY: denoiser.family}
    if lora.schedule is not None:
        metadata[SCHEDULE_KEY] = lora.schedule.to_json()
    if form == "comfyui":
        state = {_comfyui_key(denoiser, key): value for key, value in lora.state.items()}
        state |= {f"{denoiser.comfyui_name(layer)}.alpha": torch.tensor(float(lora.alpha)) for layer in lora.layers}
    else:
        prefix = denoiser.subfolder if form == "diffusers" else PEFT_PREFIX
        state = {f"{prefix}.{key}": value for key, value in lora.state.items()}
    if form == "diffusers":
        metadata[CONFIG_KEY] = json.dumps({f"{prefix}.{key}": v for key, v in config.items()}, sort_keys=True)
    if form == "peft":
        (folder / PEFT_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    path = folder / FILES[form]
    temporary = path.with_suffix(".tmp")
    save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, temporary, metadata)
    return temporary.replace(path)


def read_lora(path: Path | str, denoiser: Denoiser) -> Lora:
    """Read adapters in any of the forms, from a file or the folder that holds it.

    Raises:
        ValueError: no or a broken file, adapters of another family, of another width, or of several ranks.
    """
    file = _find(Path(path))
    try:
        with safe_open(file, framework="pt") as handle:
            metadata = handle.metadata() or {}
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(f"expected a safetensors LoRA, got {file}: {error}") from error
    named = metadata.get(FAMILY_KEY, denoiser.family)
    if named != denoiser.family:
        raise ValueError(f"expected a LoRA for {denoiser.family}, got one for {named} in {file}")
    state, alphas = _by_layer(tensors, denoiser, file)
    schedule = metadata.get(SCHEDULE_KEY)
    rank = Lora(state, 0.0).rank
    alphas = alphas or _alphas_of_config(file, metadata) or {float(rank)}
    if len(alphas) != 1:
        raise ValueError(f"expected one alpha for all layers, got {sorted(alphas)} in {file}")
    return Lora(state, alphas.pop(), ScaleSchedule.from_json(schedule) if schedule else None)


def _find(path: Path) -> Path:
    found = [path / name for name in FILES.values() if (path / name).is_file()]
    if path.is_file():
        return path
    if not found:
        raise ValueError(f"expected a LoRA file, or a folder with {' or '.join(FILES.values())}, got {path}")
    return found[0]


def _by_layer(tensors: dict[str, Tensor], denoiser: Denoiser, file: Path) -> tuple[dict[str, Tensor], set[float]]:
    """Return the tensors by layer, each checked against the layer's width, and the alphas among them."""
    layers = {name: layer for name, layer in denoiser.backbone.named_modules() if isinstance(layer, torch.nn.Linear)}
    names = {
        known: name
        for name in layers
        for known in (name, f"{denoiser.subfolder}.{name}", f"{PEFT_PREFIX}.{name}", denoiser.comfyui_name(name))
    }
    state, alphas = {}, set()
    for key, value in tensors.items():
        match = _KEY.fullmatch(key)
        name = names.get(match["layer"]) if match else None
        if match is None or name is None:
            raise ValueError(f"expected a LoRA of this family, got {key}, which is no layer of the model, in {file}")
        if match["alpha"]:
            alphas.add(float(value))
            continue
        if value.ndim != 2:
            raise ValueError(f"expected a matrix in {key}, got shape {tuple(value.shape)} in {file}")
        down = match["kind"] in {"A", "down"}
        layer = layers[name]
        width, expected = (value.shape[1], layer.in_features) if down else (value.shape[0], layer.out_features)
        if width != expected:
            raise ValueError(f"expected width {expected} in {key}, got {width}: {file} belongs to another model")
        state[f"{name}.lora_{'A' if down else 'B'}.weight"] = value
    return state, alphas


def _alphas_of_config(file: Path, metadata: dict[str, str]) -> set[float]:
    """Return the alpha that metadata or a config beside the file give, if any."""
    packed = json.loads(metadata.get(CONFIG_KEY, "{}"))
    found = {float(value) for key, value in packed.items() if key.endswith("lora_alpha")}
    beside = file.parent / PEFT_CONFIG
    if not found and file.name == FILES["peft"] and beside.is_file():
        config = json.loads(beside.read_text())
        other = [name for name in ("use_rslora", "use_dora", "alpha_pattern", "rank_pattern") if config.get(name)]
        if other:
            raise ValueError(f"expected a plain LoRA, got {', '.join(other)} in {beside}")
        found = {float(config["lora_alpha"])} if "lora_alpha" in config else set()
    return found


def _comfyui_key(denoiser: Denoiser, key: str) -> str:
    layer, _, kind = key.rpartition(".lora_")
    return f"{denoiser.comfyui_name(layer)}.lora_{'down' if kind.startswith('A') else 'up'}.weight"
