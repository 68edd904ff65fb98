"""ImageReward (Xu et al., 2023) over transformers' BLIP: the released weights, with their keys renamed."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from swd_eval.distances.modes import centre_crop, pixels_of
from swd_eval.measure import Measure, Prepare, Run, require
from swd_eval.weights import BERT, IMAGE_REWARD, read_state

NUM_TOKENS = 35
REWARD_MEAN, REWARD_STD = 0.16717362830052426, 1.0333394966054072
PIXEL_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
PIXEL_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
ENDS = ("weight", "bias")
HEAD_DIM = 64  # of BERT and of each ViT
# BLIP's names, as timm has them, to transformers'.
RENAMES = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj", "embeddings.patch_embedding"),
    (r"^blocks\.(\d+)\.norm", r"encoder.layers.\1.layer_norm"),
    (r"^blocks\.(\d+)\.attn\.qkv", r"encoder.layers.\1.self_attn.qkv"),
    (r"^blocks\.(\d+)\.attn\.proj", r"encoder.layers.\1.self_attn.projection"),
    (r"^blocks\.(\d+)\.mlp", r"encoder.layers.\1.mlp"),
    (r"^norm\.", "post_layernorm."),
)


class ImageReward(nn.Module):
    """BLIP's image encoder, its text encoder that attends to the image, and five linear layers.

    Sizes are those of the weights (`blip.visual_encoder.*`, `blip.text_encoder.*`, `mlp.*`); other keys are left out.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        from transformers.models.blip.modeling_blip import BlipVisionModel
        from transformers.models.blip.modeling_blip_text import BlipTextModel

        image, text, mlp = (_below(state, f"{name}.") for name in ("blip.visual_encoder", "blip.text_encoder", "mlp"))
        if not (image and text and mlp):
            raise ValueError("expected the weights of ImageReward, got others: give ImageReward.pt")
        text.pop("embeddings.position_ids", None)
        self.vision = BlipVisionModel(_vision_config(image))
        self.text = BlipTextModel(_text_config(text), add_pooling_layer=False)
        widths = [mlp["layers.0.weight"].shape[1], 1024, 128, 64, 16, 1]
        # Without activations, as released; the numbers skip the places of dropout.
        places, linear = (0, 2, 4, 6, 7), [nn.Linear(a, b) for a, b in pairwise(widths)]
        self.mlp = nn.Sequential(*linear)
        renamed = {f"{place}.{end}": mlp[f"layers.{old}.{end}"] for place, old in enumerate(places) for end in ENDS}
        for module, weights in ((self.vision, rename_vision(image)), (self.text, text), (self.mlp, renamed)):
            module.load_state_dict(weights)

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the rewards (B, 1) of normalised images (B, 3, 224, 224) and tokens (B, 35)."""
        image = self.vision(pixels).last_hidden_state
        seen = torch.ones(image.shape[:2], dtype=torch.long, device=image.device)
        hidden = self.text(
            input_ids=tokens, attention_mask=mask, encoder_hidden_states=image, encoder_attention_mask=seen
        ).last_hidden_state
        reward: Tensor = (self.mlp(hidden[:, 0].float()) - REWARD_MEAN) / REWARD_STD
        return reward


def image_reward(weights: Path, device: str) -> Measure:
    """Return ImageReward."""
    require("clip", "transformers")
    path, texts = IMAGE_REWARD.find(weights), BERT.find(weights)
    about = {
        "weights": IMAGE_REWARD.note(path),
        "tokenizer": BERT.note(texts),
        "preprocessing": "bicubic 224, crop; prompts of 35 tokens",
        "dtype": "float32",
    }
    return Measure("image-reward", about, lambda: load_image_reward(path, texts, device), 1, ("image-reward",))


def load_image_reward(weights: Path, tokenizer: Path, device: str) -> tuple[Prepare, Run]:
    """Load the released weights, and BERT's tokenizer from a folder."""
    from transformers import BertTokenizer

    network = ImageReward(read_state(weights)).to(device).eval()
    tokens = BertTokenizer.from_pretrained(tokenizer, local_files_only=True)

    @torch.inference_mode()
    def run(images: Sequence[Tensor], prompts: Sequence[str]) -> Tensor:
        options: dict[str, Any] = {"padding": "max_length", "truncation": True, "max_length": NUM_TOKENS}
        text = tokens(list(prompts), return_tensors="pt", **options).to(device)
        rewards: Tensor = network(torch.stack(list(images)).to(device), text.input_ids, text.attention_mask)
        return rewards.cpu()

    return prepare_image, run


def prepare_image(image: Image.Image) -> Tensor:
    """Return normalised (3, 224, 224): to 224 by bicubic, centre crop."""
    return (pixels_of(centre_crop(image, 224, Image.Resampling.BICUBIC)) / 255 - PIXEL_MEAN) / PIXEL_STD


def rename_vision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the image encoder's weights under transformers' names."""
    renamed = dict(state)
    for old, new in RENAMES:
        renamed = {re.sub(old, new, name): value for name, value in renamed.items()}
    return renamed


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({found[1] for name in state if (found := re.match(pattern, name))})


def _vision_config(state: Mapping[str, Tensor]) -> Any:
    from transformers import BlipVisionConfig

    positions, width = state["pos_embed"].shape[1:]
    patch = state["patch_embed.proj.weight"].shape[-1]
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=state["blocks.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_count(state, r"blocks\.(\d+)\."),
        num_attention_heads=width // HEAD_DIM,
        patch_size=patch,
        image_size=round((positions - 1) ** 0.5) * patch,
        layer_norm_eps=1e-6,  # transformers' default is 1e-5
    )


def _text_config(state: Mapping[str, Tensor]) -> Any:
    from transformers import BlipTextConfig

    vocabulary, width = state["embeddings.word_embeddings.weight"].shape
    return BlipTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        encoder_hidden_size=state["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        intermediate_size=state["encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=_count(state, r"encoder\.layer\.(\d+)\."),
        num_attention_heads=width // HEAD_DIM,
        max_position_embeddings=state["embeddings.position_embeddings.weight"].shape[0],
        is_decoder=True,  # builds the attention to the image; forward() stays bidirectional
        bos_token_id=None,
        eos_token_id=None,
        sep_token_id=None,
    )
