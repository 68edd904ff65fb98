"""The teacher's parts before training: real diffusers and transformers classes with small configs."""

import json
from collections.abc import Iterable

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

NUM_TOKENS = 16  # start, up to 14 words and signs, end
LATENT_SIZE = 16
TEXT_WIDTH = 64


def build_vae() -> AutoencoderKL:
    """Build the f4 autoencoder: 64 px to (4, 16, 16)."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


def build_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
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
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=NUM_TOKENS)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """Build one of the two text encoders, trained together with the transformer."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=NUM_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config)


def build_transformer() -> SD3Transformer2DModel:
    """Build the SD3 transformer: 6 blocks of width 128 over 2x2 patches, 3.4 M parameters."""
    return SD3Transformer2DModel(
        sample_size=LATENT_SIZE,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=6,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=2 * TEXT_WIDTH,
        caption_projection_dim=128,
        pooled_projection_dim=2 * TEXT_WIDTH,
        pos_embed_max_size=LATENT_SIZE // 2,
        qk_norm="rms_norm",
    )


def encode_text(
    encoders: Iterable[CLIPTextModelWithProjection], tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode tokens as StableDiffusion3Pipeline does without T5: (B, 16, 128) and pooled (B, 128)."""
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
