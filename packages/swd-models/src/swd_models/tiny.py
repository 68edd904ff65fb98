"""Random tiny members of every family, for tests and dry runs: the real classes with small configs."""

import torch
from diffusers import SD3Transformer2DModel

from swd_models.sd3 import SD3Denoiser


def tiny_sd3(seed: int = 0, **config: object) -> SD3Denoiser:
    """Build a random SD3 of width 32 with 3 blocks, the first with dual attention as SD3.5-M has."""
    defaults = {
        "sample_size": 16,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 3,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 24,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 20,
        "pos_embed_max_size": 16,
        "dual_attention_layers": (0,),
        "qk_norm": "rms_norm",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = SD3Transformer2DModel(**{**defaults, **config})
    return SD3Denoiser(transformer.eval())


def tiny_sd3_cond(num_samples: int, seed: int = 0, num_tokens: int = 5) -> dict[str, torch.Tensor]:
    """Draw text embeddings that fit `tiny_sd3`."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "prompt_embeds": torch.randn(num_samples, num_tokens, 24, generator=generator),
        "pooled_prompt_embeds": torch.randn(num_samples, 20, generator=generator),
    }
