"""The video teacher's parts before training: real diffusers and transformers classes with small configs."""

from collections.abc import Iterable

from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

NUM_TOKENS = 12  # 9 words and signs, end
CHANNELS, TEXT_WIDTH = 8, 64


def build_vae() -> AutoencoderKLWan:
    """Build the causal autoencoder, f4 in space and in time: 17 frames of 32 px to (8, 5, 8, 8)."""
    return AutoencoderKLWan(
        base_dim=8,
        decoder_base_dim=12,
        z_dim=CHANNELS,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.0] * CHANNELS,
        latents_std=[1.0] * CHANNELS,
        scale_factor_spatial=4,
    )


def build_tokenizer(captions: Iterable[str]) -> PreTrainedTokenizerFast:
    """Make each word of the captions one token, and bytes of all others, with an end as T5 has it."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel()
    special = ["<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
    )
    bpe.train_from_iterator(captions, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=NUM_TOKENS
    )


def build_text_encoder(tokenizer: PreTrainedTokenizerFast) -> UMT5EncoderModel:
    """Build the text encoder, trained together with the transformer."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer),
            d_model=TEXT_WIDTH,
            d_kv=16,
            d_ff=2 * TEXT_WIDTH,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
        )
    )


def build_transformer() -> WanTransformer3DModel:
    """Build the transformer: 6 blocks of width 128 over patches of 1x2x2."""
    return WanTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=32,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=64,
        ffn_dim=512,
        num_layers=6,
        rope_max_seq_len=32,
    )


def encode_text(encoder: UMT5EncoderModel, tokens: Tensor, mask: Tensor) -> Tensor:
    """Encode tokens as WanPipeline does: (B, 12, 64), zero after the end."""
    hidden: Tensor = encoder(tokens, mask).last_hidden_state
    return hidden * mask[..., None]


def build_pipeline(vae: AutoencoderKLWan, tokenizer: PreTrainedTokenizerFast, modules: nn.ModuleDict) -> WanPipeline:
    """Put the trained parts together."""
    return WanPipeline(
        transformer=modules["transformer"],
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=modules["text_encoder"],
        tokenizer=tokenizer,
    )
