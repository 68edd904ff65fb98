"""PickScore's CLIP over transformers 5 against open_clip, where CLIP-H was trained, with the same random weights.

In an environment of its own with open-clip-torch and transformers 5: python proofs/clip.py
"""

from importlib.metadata import version

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

WIDTH, LAYERS, PATCH, TOKENS = 128, 3, 14, 500


def build() -> tuple[nn.Module, CLIPModel]:
    """Return a small ViT-H/14 of both kinds: GELU, 77 tokens, heads of 64, the last token's features."""
    tower = {"width": WIDTH, "layers": LAYERS}
    model = open_clip.CLIP(
        embed_dim=64,
        vision_cfg=tower | {"image_size": 224, "patch_size": PATCH, "head_width": 64},
        text_cfg=tower | {"heads": WIDTH // 64, "context_length": 77, "vocab_size": TOKENS},
    ).eval()
    sizes = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS, "hidden_act": "gelu"}
    sizes |= {"num_attention_heads": WIDTH // 64}
    text = sizes | {"vocab_size": TOKENS, "eos_token_id": TOKENS - 1, "bos_token_id": 0, "pad_token_id": 1}
    vision = sizes | {"image_size": 224, "patch_size": PATCH}
    return model, CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)).eval()


def copy(source: nn.Module, target: CLIPModel) -> None:
    """Copy open_clip's weights into transformers' model, after filling them at random."""
    torch.manual_seed(0)
    for name, value in source.named_parameters():
        noise = torch.randn_like(value)
        is_norm = "ln_" in name and name.endswith("weight")
        value.data = 1 + 0.1 * noise if is_norm else noise / (value.shape[-1] if value.ndim > 1 else 100) ** 0.5
    state = {key: value.data for key, value in source.state_dict().items()}
    found = {
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "text_projection.weight": state["text_projection"].T,
        "visual_projection.weight": state["visual.proj"].T,
        "logit_scale": state["logit_scale"],
    }
    norms = {"ln_final": "text_model.final_layer_norm", "visual.ln_pre": "vision_model.pre_layrnorm",
             "visual.ln_post": "vision_model.post_layernorm"}  # fmt: skip
    for side, ours in (("", "text_model"), ("visual.", "vision_model")):
        for layer in range(LAYERS):
            here, there = f"{side}transformer.resblocks.{layer}", f"{ours}.encoder.layers.{layer}"
            norms |= {f"{here}.ln_{index}": f"{there}.layer_norm{index}" for index in (1, 2)}
            norms |= {f"{here}.mlp.c_fc": f"{there}.mlp.fc1", f"{here}.mlp.c_proj": f"{there}.mlp.fc2"}
            norms |= {f"{here}.attn.out_proj": f"{there}.self_attn.out_proj"}
            for end in ("weight", "bias"):
                parts = state[f"{here}.attn.in_proj_{end}"].chunk(3)
                for name, part in zip("qkv", parts, strict=True):
                    found[f"{there}.self_attn.{name}_proj.{end}"] = part
    for name, ours in norms.items():
        found |= {f"{ours}.{end}": state[f"{name}.{end}"] for end in ("weight", "bias")}
    missing = target.load_state_dict(found, strict=False)
    assert not missing.unexpected_keys, missing
    assert all(key.endswith("position_ids") for key in missing.missing_keys), missing


def difference(a: Tensor, b: Tensor) -> str:
    """Return the largest difference for reading."""
    return f"{(a - b).abs().max():.1e}"


def main() -> None:
    """Print the largest differences."""
    print(*(f"{package} {version(package)}" for package in ("torch", "transformers", "open-clip-torch", "pillow")))
    theirs, ours = build()
    copy(theirs, ours)
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(3, 3, 224, 224, generator=generator)
    tokens = torch.zeros(3, 77, dtype=torch.long)
    for row, length in zip(tokens, (5, 30, 77), strict=True):
        row[1 : length - 1] = torch.randint(2, TOKENS - 1, (length - 2,), generator=generator)
        row[length - 1] = TOKENS - 1
    mask = (torch.arange(77) <= tokens.argmax(1)[:, None]).long()
    with torch.no_grad():
        image, text = theirs.encode_image(pixels, normalize=True), theirs.encode_text(tokens, normalize=True)
        outputs = ours(input_ids=tokens, attention_mask=mask, pixel_values=pixels)
    expected, score = 100 * (image * text).sum(1), 100 * (outputs.image_embeds * outputs.text_embeds).sum(1)
    print("scores", [round(value, 3) for value in score.tolist()], "largest difference", difference(score, expected))
    transform = open_clip.image_transform(
        224, is_train=False, mean=open_clip.OPENAI_DATASET_MEAN, std=open_clip.OPENAI_DATASET_STD
    )
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 517, 3), dtype=np.uint8))
    prepared = CLIPImageProcessorPil()(picture, return_tensors="pt").pixel_values[0]
    print("pixels: largest difference", difference(prepared, transform(picture)))


if __name__ == "__main__":
    main()
