"""ImageReward over transformers 5 against the code of the package image-reward 1.5, with the same random weights.

Two environments, for the original imports neither on transformers 5 nor with new timm:

    python proofs/image_reward.py original FOLDER   # image-reward and fairscale --no-deps, timm 0.6, transformers 4.30
    python proofs/image_reward.py ours FOLDER       # swd-eval[clip]

FOLDER carries weights, inputs and rewards from one to the other. The small model's rewards are what
tests/test_image_reward.py has frozen.
"""

import importlib
import inspect
import json
import re
import sys
import tempfile
import types
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

SMALL = {"width": 128, "depth": 2, "text": 64, "layers": 3, "vocabulary": 50, "seed": 0}
FULL = {"width": 1024, "depth": 24, "text": 768, "layers": 12, "vocabulary": 30524, "seed": 1}


def fill(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Return random weights that keep the activations of every layer alive; each depends on its name alone."""
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed + crc32(name.encode())))
        is_norm = "norm" in name.lower() and name.endswith("weight")
        state[name] = 1 + 0.1 * noise if is_norm else noise / (shape[-1] if len(shape) > 1 else 100) ** 0.5
    return state


def inputs(vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return normalised images, tokens, and a mask of prompts of 35 and 7 tokens."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, vocabulary, (2, 35), generator=generator)
    mask = (torch.arange(35) < torch.tensor([[35], [7]])).long()
    return torch.randn(2, 3, 224, 224, generator=generator), tokens, mask


@cache
def open_original() -> list[Any]:
    """Import the original's modules without its packages' own, which import what no one needs."""
    root = Path(find_spec("ImageReward").submodule_search_locations[0])
    for name in ("ImageReward", "ImageReward.models", "ImageReward.models.BLIP"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(root.parent / name.replace(".", "/"))]
    names = ("ImageReward", "models.BLIP.blip_pretrain", "models.BLIP.vit")
    return [importlib.import_module(f"ImageReward.{name}") for name in names]


def original(folder: Path, name: str, sizes: dict[str, int]) -> None:
    """Write weights and rewards of the original."""
    reward, pretrain, vit = open_original()
    transformer = vit.VisionTransformer(
        img_size=224, patch_size=16, embed_dim=sizes["width"], depth=sizes["depth"], num_heads=sizes["width"] // 64
    )
    pretrain.create_vit = lambda *_: (transformer, sizes["width"])
    pretrain.init_tokenizer = lambda: SimpleNamespace(__len__=lambda: sizes["vocabulary"])
    config = {
        "vocab_size": sizes["vocabulary"], "hidden_size": sizes["text"], "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["text"] // 64, "intermediate_size": 4 * sizes["text"], "add_cross_attention": True,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "type_vocab_size": 2,
    }  # fmt: skip
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(config, file)
        file.flush()
        model = reward.ImageReward.__new__(reward.ImageReward)
        torch.nn.Module.__init__(model)
        model.blip = pretrain.BLIP_Pretrain(med_config=file.name)
    full = inspect.getsource(reward.ImageReward.__init__)
    model.mean, model.std = (float(re.search(rf"self\.{name} = (\S+)", full)[1]) for name in ("mean", "std"))
    model.device, model.mlp, model.preprocess = "cpu", reward.MLP(sizes["text"]), reward._transform(224)
    state = model.state_dict()
    filled = fill({key: tuple(value.shape) for key, value in state.items() if value.is_floating_point()}, sizes["seed"])
    model.load_state_dict(state | filled)
    model.eval()
    pixels, tokens, mask = inputs(sizes["vocabulary"])
    with torch.no_grad():
        rewards = model.score_gard(tokens, mask, pixels)
    save_file({"rewards": rewards, "photo": model.preprocess(photo())}, folder / f"{name}-rewards.safetensors")
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / f"{name}.safetensors")
    print(name, "original rewards", [round(value, 5) for value in rewards[:, 0].tolist()])


def ours(folder: Path, name: str, sizes: dict[str, int]) -> None:
    """Print how far ours are from the original's."""
    from swd_eval.scores.image_reward import ImageReward, prepare_image

    expected = load_file(folder / f"{name}-rewards.safetensors")
    model = ImageReward(load_file(folder / f"{name}.safetensors")).eval()
    pixels, tokens, mask = inputs(sizes["vocabulary"])
    with torch.no_grad():
        rewards = model(pixels, tokens, mask)
    print(name, sum(each.numel() for each in model.parameters()), "parameters; rewards", rewards[:, 0].tolist())
    print("  largest difference of rewards", f"{(rewards - expected['rewards']).abs().max():.1e}", end="; ")
    print("of pixels", f"{(prepare_image(photo()) - expected['photo']).abs().max():.1e}")


def photo() -> Image.Image:
    """Return a picture of noise that is not square."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 517, 3), dtype=np.uint8))


def main() -> None:
    """Run one half of the proof."""
    half, folder = sys.argv[1], Path(sys.argv[2])
    packages = ("torch", "transformers", "timm", "image-reward") if half == "original" else ("torch", "transformers")
    print(half, *(f"{package} {version(package)}" for package in packages))
    for name, sizes in (("small", SMALL), ("full", FULL)):
        {"original": original, "ours": ours}[half](folder, name, sizes)


if __name__ == "__main__":
    main()
