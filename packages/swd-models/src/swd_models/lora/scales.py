"""How strongly a LoRA counts: told by its tensors, its header or the config beside it, else taken as alpha = rank."""

import json
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swd_data import read_object
from swd_models.denoiser import Denoiser
from swd_models.lora.names import shown

PEFT_CONFIG, CONFIG_KEY = "adapter_config.json", "lora_adapter_metadata"
Config = dict[str, Any]
MAX_PATTERNS = 10_000
_ENDLESS = re.compile(r"\)[*+{]|([*+}][^*+{]*){5}", re.DOTALL)
"""In an expression: what is repeated as a whole, or many repetitions. It is tried in ways without number."""
# What PEFT computes otherwise than a plain LoRA, and beginnings that also change the base's weights.
_OTHER = (
    *("use_dora", "lora_bias", "use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config", "kasa_config"),
    *("monteclora_config", "layer_replication", "target_parameters"),
)
_OTHER_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga", "mica")


def alphas_of(
    file: Path,
    denoiser: Denoiser,
    given: Mapping[str, float],
    metadata: Mapping[str, str],
    ranks: Mapping[str, int],
    *,
    dora: bool = False,
) -> tuple[dict[str, float], bool]:
    """Return the alpha of each layer, and whether the scale is alpha / sqrt(rank) instead of alpha / rank.

    `given` are alphas among the tensors, which count before any config, as in ComfyUI. A line on stderr says where
    nothing tells an alpha and the rank is taken: a scale of 1. With `dora` a config may be a DoRA's.

    Raises:
        ValueError: a config that is none, of another adapter than a plain LoRA, or of other ranks; no positive alpha.
    """
    source, config = ("", {}) if given else _config(file, denoiser, metadata)
    config = {name: value for name, value in config.items() if name != "use_dora" or not dora}
    alphas, rslora = _told(config, ranks, source) if config else (dict(given), False)
    found = {layer: _positive(alphas.get(layer, rank), f"{layer} in {file}") for layer, rank in ranks.items()}
    missing = ranks.keys() - alphas.keys()
    if missing:
        share = "" if len(missing) == len(ranks) else f" for {len(missing)} of {len(ranks)} layers"
        print(f"no alpha{share} in {file}: alpha = rank is taken, a scale of 1", file=sys.stderr)
    return found, rslora


def _config(file: Path, denoiser: Denoiser, metadata: Mapping[str, str]) -> tuple[str, Config]:
    """Return the config in the header (diffusers') or beside the file (PEFT's), and what to call it."""
    prefix, source = f"{denoiser.subfolder}.", f"{CONFIG_KEY} of {file}"
    packed = _parse(metadata.get(CONFIG_KEY, "{}"), source)
    config = {key.removeprefix(prefix): value for key, value in packed.items() if key.startswith(prefix)}
    config = config or (packed if "lora_alpha" in packed else {})
    beside = file.parent / PEFT_CONFIG
    if config or not beside.is_file():
        return source, config
    return str(beside), read_object(beside, "a PEFT config")


def _parse(text: str, source: str) -> Config:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected a PEFT config in JSON, got {source}: {error}: save the LoRA again") from error
    if not isinstance(config, dict):
        raise ValueError(f"expected a PEFT config in JSON, got {text!r:.40} in {source}: save the LoRA again")
    return config


def _told(config: Config, ranks: Mapping[str, int], source: str) -> tuple[dict[str, float], bool]:
    """Return the alphas that a config tells, by PEFT's rules; none where it names none."""
    _check_plain(config, source)
    if "r" in config:
        for layer, rank in _matched(config, "rank_pattern", config["r"], ranks, source).items():
            if rank != ranks[layer]:
                raise ValueError(
                    f"expected rank {rank!r:.40} in {layer}, as {source} says, got {ranks[layer]}: keep a LoRA "
                    "with the config that it was saved with"
                )
    rslora, pattern = bool(config.get("use_rslora")), config.get("alpha_pattern")
    if "lora_alpha" not in config:
        if rslora or pattern:
            raise ValueError(f"expected lora_alpha beside use_rslora or alpha_pattern, got none in {source}: add it")
        return {}, False
    told = _matched(config, "alpha_pattern", config["lora_alpha"], ranks, source)
    return {layer: _positive(alpha, f"{layer} in {source}") for layer, alpha in told.items()}, rslora


def _check_plain(config: Config, source: str) -> None:
    other = [name for name in _OTHER if config.get(name)]
    if config.get("bias") not in (None, "none"):
        other.append("bias")
    kind, start = config.get("peft_type") or "LORA", config.get("init_lora_weights")
    if kind != "LORA":
        other.append(f"{kind!r:.40}")
    if isinstance(start, str) and start.lower().startswith(_OTHER_BASE):
        other.append(f"init_lora_weights {start!r:.40}")
    if other:
        raise ValueError(
            f"expected a plain LoRA, got {', '.join(other)} in {source}, which is not supported: convert it to a plain "
            "LoRA, or merge it into its model, with the tool that made it"
        )


def _matched(config: Config, name: str, default: Any, layers: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return each layer's value of a pattern: the first expression that fits it or its end, else the default."""
    pattern = config.get(name) or {}
    if not isinstance(pattern, dict):
        raise ValueError(f"expected layers and values as {name}, got {pattern!r:.40} in {source}: save the LoRA again")
    endless = next((key for key in pattern if len(pattern) > MAX_PATTERNS or _ENDLESS.search(key)), None)
    if endless is not None:
        raise ValueError(
            f"expected at most {MAX_PATTERNS} plain expressions in {name}, got {len(pattern)}, {shown(endless)!r:.60} "
            f"among them, in {source}, which could take for ever: save the LoRA again"
        )
    try:
        found = [(re.compile(rf"(.*\.)?({key})$"), value) for key, value in pattern.items()]
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            f"expected expressions in {name}, got {shown(str(error))} in {source}: save the LoRA again"
        ) from error
    return {layer: next((value for e, value in found if e.match(layer)), default) for layer in layers}


def _positive(value: object, where: str) -> float:
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        number = math.inf
    if isinstance(value, bool) or not 0 < number < math.inf:
        raise ValueError(
            f"expected an alpha above 0, got {value!r:.40} for {where}: save the LoRA again with its alpha"
        )
    return number
