"""What layers are called in their models' own code, which LoRA files of other tools follow."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from swd_models.denoiser import Denoiser

_ORDER = ("", "q", "k", "v", "mlp")
"""Of layers that are rows of one there."""
_DIT = {
    r"transformer_blocks\.(\d+)\.attn\.to_([qkv])": r"double_blocks.\1.img_attn.qkv \2",
    r"transformer_blocks\.(\d+)\.attn\.add_([qkv])_proj": r"double_blocks.\1.txt_attn.qkv \2",
    r"transformer_blocks\.(\d+)\.attn\.to_out\.0": r"double_blocks.\1.img_attn.proj",
    r"transformer_blocks\.(\d+)\.attn\.to_add_out": r"double_blocks.\1.txt_attn.proj",
    r"transformer_blocks\.(\d+)\.ff\.(?:net\.0\.proj|linear_in)": r"double_blocks.\1.img_mlp.0",
    r"transformer_blocks\.(\d+)\.ff\.(?:net\.2|linear_out)": r"double_blocks.\1.img_mlp.2",
    r"transformer_blocks\.(\d+)\.ff_context\.(?:net\.0\.proj|linear_in)": r"double_blocks.\1.txt_mlp.0",
    r"transformer_blocks\.(\d+)\.ff_context\.(?:net\.2|linear_out)": r"double_blocks.\1.txt_mlp.2",
    r"x_embedder": "img_in",
    r"context_embedder": "txt_in",
    r"proj_out": "final_layer.linear",
}
_LAST_NORM = {r"norm_out\.linear": "final_layer.adaLN_modulation.1"}
_TIME = {
    r"time_(?:text|guidance)_embed\.timestep_embedder\.linear_1": "time_in.in_layer",
    r"time_(?:text|guidance)_embed\.timestep_embedder\.linear_2": "time_in.out_layer",
    r"time_(?:text|guidance)_embed\.guidance_embedder\.linear_1": "guidance_in.in_layer",
    r"time_(?:text|guidance)_embed\.guidance_embedder\.linear_2": "guidance_in.out_layer",
    r"time_text_embed\.text_embedder\.linear_1": "vector_in.in_layer",
    r"time_text_embed\.text_embedder\.linear_2": "vector_in.out_layer",
}
_RULES: Mapping[str, Mapping[str, str]] = {
    "flux": _DIT
    | _LAST_NORM
    | _TIME
    | {
        r"transformer_blocks\.(\d+)\.norm1\.linear": r"double_blocks.\1.img_mod.lin",
        r"transformer_blocks\.(\d+)\.norm1_context\.linear": r"double_blocks.\1.txt_mod.lin",
        r"single_transformer_blocks\.(\d+)\.attn\.to_([qkv])": r"single_blocks.\1.linear1 \2",
        r"single_transformer_blocks\.(\d+)\.proj_mlp": r"single_blocks.\1.linear1 mlp",
        r"single_transformer_blocks\.(\d+)\.proj_out": r"single_blocks.\1.linear2",
        r"single_transformer_blocks\.(\d+)\.norm\.linear": r"single_blocks.\1.modulation.lin",
    },
    "flux2": _DIT
    | _LAST_NORM
    | _TIME
    | {
        r"single_transformer_blocks\.(\d+)\.attn\.to_qkv_mlp_proj": r"single_blocks.\1.linear1",
        r"single_transformer_blocks\.(\d+)\.attn\.to_out": r"single_blocks.\1.linear2",
        r"(single_stream_modulation|double_stream_modulation_(?:img|txt))\.linear": r"\1.lin",
    },
    "sd3": _LAST_NORM
    | {
        r"transformer_blocks\.(\d+)\.norm1\.linear": r"joint_blocks.\1.x_block.adaLN_modulation.1",
        r"transformer_blocks\.(\d+)\.norm1_context\.linear": r"joint_blocks.\1.context_block.adaLN_modulation.1",
        r"time_text_embed\.timestep_embedder\.linear_1": "t_embedder.mlp.0",
        r"time_text_embed\.timestep_embedder\.linear_2": "t_embedder.mlp.2",
        r"time_text_embed\.text_embedder\.linear_1": "y_embedder.mlp.0",
        r"time_text_embed\.text_embedder\.linear_2": "y_embedder.mlp.2",
        r"pos_embed\.proj": "x_embedder.proj",
        r"transformer_blocks\.(\d+)\.(attn2?)\.to_([qkv])": r"joint_blocks.\1.x_block.\2.qkv \3",
        r"transformer_blocks\.(\d+)\.attn\.add_([qkv])_proj": r"joint_blocks.\1.context_block.attn.qkv \2",
        r"transformer_blocks\.(\d+)\.(attn2?)\.to_out\.0": r"joint_blocks.\1.x_block.\2.proj",
        r"transformer_blocks\.(\d+)\.attn\.to_add_out": r"joint_blocks.\1.context_block.attn.proj",
        r"transformer_blocks\.(\d+)\.ff\.net\.0\.proj": r"joint_blocks.\1.x_block.mlp.fc1",
        r"transformer_blocks\.(\d+)\.ff\.net\.2": r"joint_blocks.\1.x_block.mlp.fc2",
        r"transformer_blocks\.(\d+)\.ff_context\.net\.0\.proj": r"joint_blocks.\1.context_block.mlp.fc1",
        r"transformer_blocks\.(\d+)\.ff_context\.net\.2": r"joint_blocks.\1.context_block.mlp.fc2",
        r"context_embedder": "context_embedder",
        r"proj_out": "final_layer.linear",
    },
    "zimage": {
        r"(layers|noise_refiner|context_refiner)\.(\d+)\.attention\.to_([qkv])": r"\1.\2.attention.qkv \3",
        r"(layers|noise_refiner|context_refiner)\.(\d+)\.attention\.to_out\.0": r"\1.\2.attention.out",
    },
}
# SDXL's blocks in one row each; within a ResNet block and around all.
_RESNET = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1"}
_RESNET |= {"conv_shortcut": "skip_connection"}
_AROUND = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)|mid_block\.(\w+)\.(\d+)\.(.+)")


class Original(NamedTuple):
    """A layer's name there, its place among those that are rows of the same, and whether its halves are swapped."""

    name: str
    place: int = 0
    swapped: bool = False


def originals(layers: Iterable[str], denoiser: Denoiser) -> dict[str, tuple[str, ...]]:
    """Return the layers that each name there stands for, in the order of their rows."""
    found = defaultdict[str, dict[int, str]](dict)
    for layer in layers:
        there = original(layer, denoiser)
        found[there.name][there.place] = layer
    return {name: tuple(layer for _, layer in sorted(parts.items())) for name, parts in found.items()}


def original(layer: str, denoiser: Denoiser) -> Original:
    """Return what a layer is called there; its own name where no other is known."""
    native = denoiser.comfyui_name(layer)
    if native.startswith("diffusion_model."):
        return Original(native.removeprefix("diffusion_model."))
    if denoiser.family == "sdxl":
        return Original(_ldm(layer, denoiser.config))
    for pattern, name in _RULES.get(denoiser.family, {}).items():
        match = re.fullmatch(pattern, layer)
        if match:
            found, _, part = match.expand(name).partition(" ")
            return Original(found, _ORDER.index(part), _is_swapped(layer, denoiser))
    return Original(layer)


def _is_swapped(layer: str, denoiser: Denoiser) -> bool:
    """Tell whether a layer gives shift and scale there, and scale and shift in diffusers."""
    last = f"transformer_blocks.{len(denoiser.layers) - 1}.norm1_context.linear"
    return layer == "norm_out.linear" or (denoiser.family == "sd3" and layer == last)


def _ldm(layer: str, config: Mapping[str, Any]) -> str:
    match = _BLOCK.fullmatch(layer)
    if match is None:
        return _AROUND.get(layer, layer)
    way, block, kind, index, rest, mid, mid_index, mid_rest = match.groups()
    if mid:
        place = 1 if mid == "attentions" else 2 * int(mid_index)
        return f"middle_block.{place}.{_RESNET.get(mid_rest, mid_rest)}"
    rows, level = config["layers_per_block"] + 1, int(block)
    if kind == "downsamplers":
        return f"input_blocks.{rows * (level + 1)}.0.op"
    if kind == "upsamplers":
        attends = "Attn" in config["up_block_types"][level]
        return f"output_blocks.{rows * (level + 1) - 1}.{1 + attends}.{rest}"
    row = rows * level + int(index) + (1 if way == "down" else 0)
    side = "input" if way == "down" else "output"
    return f"{side}_blocks.{row}.{int(kind == 'attentions')}.{_RESNET.get(rest, rest)}"
