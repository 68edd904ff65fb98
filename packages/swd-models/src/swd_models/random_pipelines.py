"""Random tiny pipelines of every family, for tests and dry runs: the real classes, untrained."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    WanPipeline,
    WanTransformer3DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    CLIPTextModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    UMT5Config,
    UMT5EncoderModel,
)

from swd_models.known.configs import (
    BOUNDARY,
    FLUX,
    FLUX2,
    POOLED,
    PROMPTS,
    QWEN,
    SD3,
    SDXL,
    TEXT,
    WAN,
    WAN22,
    ZIMAGE,
)
from swd_models.random_parts import CHAT, random_clip, random_t5, random_tokenizer, random_vae

VERSION = 2  # of the pipelines below: a change makes cached ones anew


def random_pipeline(name: str) -> Path:
    """Return the directory of a family's random tiny pipeline, built below the user's cache if it is not there.

    Raises:
        ValueError: no such family.
    """
    if name not in PIPELINES:
        raise ValueError(f"expected random-{', random-'.join(PIPELINES)}, got random-{name}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "swd" / f"random-{VERSION}"
    folder = cache / name
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary, torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            pipe = PIPELINES[name]()
            pipe.save_pretrained(Path(temporary) / name)
            (Path(temporary) / name / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
            try:
                (Path(temporary) / name).rename(folder)
            except OSError:  # another process was faster
                shutil.rmtree(Path(temporary) / name)
    return folder


def _sd3_pipeline() -> DiffusionPipeline:
    tokenizer = random_tokenizer()
    half = POOLED // 2
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(**SD3),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=random_vae(shift_factor=0.06, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=random_clip(tokenizer, half),
        tokenizer=tokenizer,
        text_encoder_2=random_clip(tokenizer, half),
        tokenizer_2=tokenizer,
        text_encoder_3=random_t5(tokenizer),
        tokenizer_3=tokenizer,
    )


def _flux_pipeline() -> DiffusionPipeline:
    tokenizer = random_tokenizer()
    return FluxPipeline(
        transformer=FluxTransformer2DModel(**FLUX),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=random_vae(shift_factor=0.1, scaling_factor=0.4, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=random_clip(tokenizer, POOLED, CLIPTextModel),
        tokenizer=tokenizer,
        text_encoder_2=random_t5(tokenizer),
        tokenizer_2=tokenizer,
    )


_WAN_VAE: dict[str, Any] = {
    "base_dim": 4,
    "z_dim": 4,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
    "latents_mean": [0.1, -0.1, 0.2, 0.0],
    "latents_std": [1.1, 0.9, 1.0, 1.2],
}


_WAN22_VAE: dict[str, Any] = {
    **_WAN_VAE,
    "decoder_base_dim": 4,
    "z_dim": 12,
    "is_residual": True,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_spatial": 16,
    "latents_mean": [0.1, -0.1, 0.2] * 4,
    "latents_std": [1.1, 0.9, 1.2] * 4,
}


def _wan22_pipeline() -> DiffusionPipeline:
    """Build one as Wan2.2-TI2V-5B's: an autoencoder of cells of 16 px, a timestep a token."""
    return _wan_pipeline(WAN22, _WAN22_VAE, expand_timesteps=True)


def _wan22_experts_pipeline() -> DiffusionPipeline:
    """Build one as Wan2.2-T2V-A14B: two denoisers, of high noise and of low."""
    return _wan_pipeline(transformer_2=WanTransformer3DModel(**WAN), boundary_ratio=BOUNDARY)


def _wan_pipeline(config: dict[str, Any] = WAN, vae: dict[str, Any] = _WAN_VAE, **options: Any) -> DiffusionPipeline:
    tokenizer = random_tokenizer()
    return WanPipeline(
        **options,
        transformer=WanTransformer3DModel(**config),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=AutoencoderKLWan(**vae),
        text_encoder=random_t5(tokenizer, UMT5EncoderModel, UMT5Config),
        tokenizer=tokenizer,
    )


def _sdxl_pipeline() -> DiffusionPipeline:
    tokenizer = random_tokenizer()
    wide = 2 * TEXT - POOLED
    return StableDiffusionXLPipeline(
        unet=UNet2DConditionModel(**SDXL),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        vae=random_vae(num_levels=4, scaling_factor=0.5),
        text_encoder=random_clip(tokenizer, wide, CLIPTextModel),
        tokenizer=tokenizer,
        text_encoder_2=random_clip(tokenizer, POOLED),
        tokenizer_2=tokenizer,
    )


def _flux2_pipeline() -> DiffusionPipeline:
    tokenizer = random_tokenizer()
    tokenizer.chat_template = CHAT
    vae = random_vae(kind=AutoencoderKLFlux2)
    torch.nn.init.normal_(vae.bn.running_mean, std=0.1)
    torch.nn.init.uniform_(vae.bn.running_var, 0.5, 1.5)
    text = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=TEXT // 3,
        intermediate_size=16,
        num_hidden_layers=28,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
    )
    return Flux2KleinPipeline(
        transformer=Flux2Transformer2DModel(**FLUX2),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=Qwen3ForCausalLM(text),
        tokenizer=tokenizer,
    )


def _qwen_pipeline() -> DiffusionPipeline:
    template = QwenImagePipeline(None, None, None, None, None).prompt_template_encode
    tokenizer = random_tokenizer((*PROMPTS, template.lower()), marks=("<|im_start|>", "<|im_end|>"))
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": TEXT,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 2, 2]},
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 1, "out_hidden_size": TEXT}
    return QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(**QWEN),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=AutoencoderKLQwenImage(**_WAN_VAE),
        text_encoder=Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)),
        tokenizer=tokenizer,
    )


def _zimage_pipeline() -> DiffusionPipeline:
    tokenizer = random_tokenizer()
    tokenizer.chat_template = CHAT
    transformer = ZImageTransformer2DModel(**ZIMAGE)
    for token in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.normal_(token)
    text = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=TEXT,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=12,
    )
    return ZImagePipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=random_vae(shift_factor=0.1, scaling_factor=0.4, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=Qwen3Model(text),
        tokenizer=tokenizer,
    )


PIPELINES: dict[str, Callable[[], DiffusionPipeline]] = {
    "sd3": _sd3_pipeline,
    "flux": _flux_pipeline,
    "wan": _wan_pipeline,
    "wan22": _wan22_pipeline,
    "wan22-a14b": _wan22_experts_pipeline,
    "sdxl": _sdxl_pipeline,
    "flux2": _flux2_pipeline,
    "qwen": _qwen_pipeline,
    "zimage": _zimage_pipeline,
}
