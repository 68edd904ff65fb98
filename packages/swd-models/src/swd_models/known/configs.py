"""Configs of the tiny random members of each family: data, read without torch."""

from typing import Any

Config = dict[str, Any]
TEXT, POOLED = 24, 20

SD3: Config = {
    "sample_size": 16,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 3,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": TEXT,
    "caption_projection_dim": 32,
    "pooled_projection_dim": POOLED,
    "pos_embed_max_size": 16,
    "dual_attention_layers": (0,),
    "qk_norm": "rms_norm",
}
FLUX: Config = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": TEXT,
    "pooled_projection_dim": POOLED,
    "guidance_embeds": True,
    "axes_dims_rope": (4, 6, 6),
}
WAN: Config = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": TEXT,
    "freq_dim": 16,
    "ffn_dim": 48,
    "num_layers": 3,
    "rope_max_seq_len": 32,
}
SDXL: Config = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (16, 16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 2 * TEXT,
    "attention_head_dim": (2, 2, 2),
    "transformer_layers_per_block": (1, 1, 2),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + POOLED,
}


FLUX2: Config = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": TEXT,
    "guidance_embeds": False,
    "axes_dims_rope": (4, 4, 4, 4),
}


QWEN: Config = {
    "in_channels": 16,
    "out_channels": 4,
    "num_layers": 3,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": TEXT,
    "axes_dims_rope": (4, 6, 6),
}
ZIMAGE: Config = {
    "in_channels": 4,
    "dim": 32,
    "n_layers": 3,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
    "cap_feat_dim": TEXT,
    "axes_dims": (4, 6, 6),
}
WAN22: Config = WAN | {"in_channels": 12, "out_channels": 12}
BOUNDARY = 0.875
"""Of the two experts of `random-wan22-a14b`."""

PROMPTS = tuple(
    f"a {size} {color} {thing}" for size in ("big", "small") for color in ("red", "blue") for thing in ("cat", "dog")
)

RANDOM: dict[str, tuple[str, Config]] = {
    "sd3": ("StableDiffusion3Pipeline", SD3),
    "flux": ("FluxPipeline", FLUX),
    "wan": ("WanPipeline", WAN),
    "wan22": ("WanPipeline", WAN22),
    "wan22-a14b": ("WanPipeline", WAN),
    "sdxl": ("StableDiffusionXLPipeline", SDXL),
    "flux2": ("Flux2KleinPipeline", FLUX2),
    "qwen": ("QwenImagePipeline", QWEN),
    "zimage": ("ZImagePipeline", ZIMAGE),
}
"""By name, the pipeline's class and the denoiser's config of `random-NAME`."""
