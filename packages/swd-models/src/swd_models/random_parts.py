"""Tokenizers, text encoders and autoencoders of the random tiny pipelines."""

from collections.abc import Iterable
from typing import Any

from diffusers import AutoencoderKL
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from swd_models.known.configs import PROMPTS, TEXT

NUM_TOKENS = 12
CHAT = "{% for message in messages %}{{ message.content }}{% endfor %}"


def random_tokenizer(texts: Iterable[str] = PROMPTS, marks: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """Make words of the prompts, and the bytes of any others, into tokens, and marks as they are."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel()
    special = ["<pad>", "</s>", "<unk>", *marks]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet)
    )
    options = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, model_max_length=NUM_TOKENS, **options)


def random_clip(tokenizer: PreTrainedTokenizerFast, width: int, kind: Any = CLIPTextModelWithProjection) -> Any:
    """Build a CLIP of two layers."""
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=NUM_TOKENS,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def random_t5(tokenizer: PreTrainedTokenizerFast, kind: Any = T5EncoderModel, config: Any = T5Config) -> Any:
    """Build a T5, or its like, of two layers."""
    return kind(config(vocab_size=len(tokenizer), d_model=TEXT, d_kv=12, d_ff=48, num_layers=2, num_heads=2))


def random_vae(num_levels: int = 3, kind: Any = AutoencoderKL, **config: object) -> Any:
    """Build an autoencoder with 4 channels, and cells of 4 px with three levels."""
    return kind(
        down_block_types=("DownEncoderBlock2D",) * num_levels,
        up_block_types=("UpDecoderBlock2D",) * num_levels,
        block_out_channels=(8,) * num_levels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        mid_block_add_attention=False,
        **config,
    )
