"""The teacher's parts before training: real diffusers and transformers classes with small configs."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer


@dataclass(frozen=True)
class Architecture:
    """How large the parts are."""

    latent_size: int = 16
    """Cells along a side, of 4 pixels each."""
    channels: int = 4
    num_tokens: int = 16
    """Start, up to 14 words and signs, end."""
    text_width: int = 64
    text_layers: int = 2
    width: int = 128
    layers: int = 6


EMBEDDED = Architecture()
"""3.4 M parameters."""


def build_vae(of: Architecture = EMBEDDED) -> AutoencoderKL:
    """Build the f4 autoencoder: of the embedded teacher 64 px to (4, 16, 16)."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=of.channels,
        norm_num_groups=8,
        sample_size=4 * of.latent_size,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


def build_tokenizer(captions: Iterable[str], of: Architecture = EMBEDDED) -> CLIPTokenizer:
    """Train CLIP's byte-level BPE on captions, so that each of their words is one token."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = CLIPTokenizer().backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=1024, initial_alphabet=sorted(alphabet), end_of_word_suffix="</w>", show_progress=False
    )
    bpe.train_from_iterator(captions, trainer)
    model = bpe.to_str()
    learnt = json.loads(model)["model"]
    vocab = dict(learnt["vocab"])
    for symbol in sorted(alphabet):  # a lone byte may end a word of a prompt we never saw
        vocab.setdefault(f"{symbol}</w>", len(vocab))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab.setdefault(special, len(vocab))
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split()) for pair in learnt["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=of.num_tokens)


def build_text_encoder(tokenizer: CLIPTokenizer, of: Architecture = EMBEDDED) -> CLIPTextModelWithProjection:
    """Build one of the two text encoders, trained together with the transformer."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=of.text_width,
        intermediate_size=4 * of.text_width,
        projection_dim=of.text_width,
        num_hidden_layers=of.text_layers,
        num_attention_heads=of.text_width // 32,
        max_position_embeddings=of.num_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config)


def build_transformer(of: Architecture = EMBEDDED) -> SD3Transformer2DModel:
    """Build the SD3 transformer over 2x2 patches."""
    return SD3Transformer2DModel(
        sample_size=of.latent_size,
        patch_size=2,
        in_channels=of.channels,
        out_channels=of.channels,
        num_layers=of.layers,
        attention_head_dim=32,
        num_attention_heads=of.width // 32,
        joint_attention_dim=2 * of.text_width,
        caption_projection_dim=of.width,
        pooled_projection_dim=2 * of.text_width,
        pos_embed_max_size=of.latent_size // 2,
        qk_norm="rms_norm",
    )


def build_modules(tokenizer: CLIPTokenizer, of: Architecture = EMBEDDED) -> nn.ModuleDict:
    """Build what is trained together, under the pipeline's names."""
    return nn.ModuleDict(
        {
            "text_encoder": build_text_encoder(tokenizer, of),
            "text_encoder_2": build_text_encoder(tokenizer, of),
            "transformer": build_transformer(of),
        }
    )


def encode_text(
    encoders: Iterable[CLIPTextModelWithProjection], tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode tokens as StableDiffusion3Pipeline does without T5: of the embedded teacher (B, 16, 128) and (B, 128)."""
    outputs = [encoder(tokens, output_hidden_states=True) for encoder in encoders]
    hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    return hidden, torch.cat([output.text_embeds for output in outputs], dim=-1)


def build_pipeline(vae: AutoencoderKL, tokenizer: CLIPTokenizer, modules: nn.ModuleDict) -> StableDiffusion3Pipeline:
    """Put the trained parts together; both text encoders read the same tokens."""
    return StableDiffusion3Pipeline(
        transformer=modules["transformer"],
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=modules["text_encoder"],
        tokenizer=tokenizer,
        text_encoder_2=modules["text_encoder_2"],
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
