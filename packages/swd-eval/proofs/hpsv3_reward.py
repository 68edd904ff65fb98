"""HPSv3 over transformers 5 against the code of the package hpsv3 1.0 on transformers 4.45.2, with random weights.

Two environments:

    python proofs/hpsv3_reward.py original FOLDER   # hpsv3 --no-deps, transformers 4.45.2, torchvision
    python proofs/hpsv3_reward.py ours FOLDER       # swd-eval[clip]

FOLDER carries weights, inputs and rewards from one to the other. The model is small, and has every part of the large
one; the question's text and the chat around it are compared as strings.
"""

import sys
import types
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from zlib import crc32

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

REWARD, PAD, IMAGE = 290, 291, 292
TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 300, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
}  # fmt: skip
VISION = {"depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": 64}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def fill(name: str, like: Tensor) -> Tensor:
    """Return random weights that depend on the name alone."""
    noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(crc32(name.encode())))
    is_norm = any(part in name for part in ("norm", "ln_q")) and name.endswith("weight")
    return 1 + 0.1 * noise if is_norm else noise / (like.shape[-1] if like.ndim > 1 else 100) ** 0.5


def photos() -> list[Image.Image]:
    """Return pictures of noise of two shapes."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ((300, 517), (1024, 1024))]


def inputs(grid: Tensor) -> tuple[Tensor, Tensor]:
    """Return tokens of two lengths around two images, and their mask."""
    generator = torch.Generator().manual_seed(2)
    rows = []
    for each, length in zip(grid, (40, 9), strict=True):
        words = torch.randint(0, 280, (length,), generator=generator)
        image = torch.full((int(each.prod()) // 4,), IMAGE)
        rows.append(torch.cat([words[:5], image, words[5:], torch.tensor([REWARD, 7, 8])]))
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    return tokens, (tokens != PAD).long()


def original(folder: Path) -> None:
    """Write weights, pixels, rewards and the question of the original."""
    import torch._dynamo
    from transformers import Qwen2VLConfig, Qwen2VLImageProcessor

    root = Path(find_spec("hpsv3").submodule_search_locations[0])
    for name in ("hpsv3", "hpsv3.dataset", "hpsv3.model", "hpsv3.utils"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(root.parent / name.replace(".", "/"))]
    absent = ("trl", "datasets", "matplotlib", "matplotlib.pyplot", "matplotlib.patches", "pandas", "peft", "deepspeed",
              "torch.utils.tensorboard", "cv2", "hpsv3.utils.training_utils")  # fmt: skip
    for name in absent:
        sys.modules[name] = MagicMock(__spec__=ModuleSpec(name, None))
    sys.modules["trl"].RewardTrainer = object
    from hpsv3.dataset.data_collator_qwen import INSTRUCTION, prompt_with_special_token
    from hpsv3.dataset.utils import process_vision_info
    from hpsv3.model.qwen2vl_trainer import Qwen2VLRewardModelBT

    (folder / "question.txt").write_text(INSTRUCTION.format(text_prompt="a {cat}") + prompt_with_special_token)
    pixels = 256 * 28 * 28
    content = [{"type": "image", "image": photo, "min_pixels": pixels, "max_pixels": pixels} for photo in photos()]
    images, _ = process_vision_info([[{"role": "user", "content": [each]}] for each in content])
    prepared = Qwen2VLImageProcessor()(images, return_tensors="pt")
    tokens, mask = inputs(prepared.image_grid_thw)
    saved: dict[str, Any] = {"pixels": prepared.pixel_values, "grid": prepared.image_grid_thw}
    for name, dtype in DTYPES.items():
        config = Qwen2VLConfig(
            **TEXT, vision_config=VISION, image_token_id=IMAGE, pad_token_id=PAD, attn_implementation="sdpa"
        )
        model = Qwen2VLRewardModelBT(config, output_dim=2, special_token_ids=[REWARD], rm_head_type="ranknet")
        model.load_state_dict({key: fill(key, value) for key, value in model.state_dict().items()})
        save_file(model.state_dict(), folder / "weights.safetensors")
        model.to(dtype)
        model.rm_head.to(torch.float32)
        with torch.no_grad():
            call = {"input_ids": tokens, "attention_mask": mask, "return_dict": True, "use_cache": False}
            model.rm_head.register_forward_pre_hook(lambda _, args: (args[0].float(),))  # as autocast does on a GPU
            logits = model.eval()(**call, pixel_values=prepared.pixel_values, image_grid_thw=prepared.image_grid_thw)
        saved[name] = logits["logits"][:, :1].float().contiguous()
        print(name, "original rewards", saved[name][:, 0].tolist())
    save_file(saved, folder / "rewards.safetensors")


def ours(folder: Path) -> None:
    """Print how far ours are from the original's."""
    from transformers import Qwen2VLConfig, Qwen2VLImageProcessorPil

    from swd_eval.scores.hpsv3 import PIXELS, HPSv3, question

    saved = load_file(folder / "rewards.safetensors")
    prepared = Qwen2VLImageProcessorPil(min_pixels=PIXELS, max_pixels=PIXELS)(photos(), return_tensors="pt")
    print("pixels: largest difference", f"{(prepared.pixel_values - saved['pixels']).abs().max():.1e};", end=" ")
    print("grids equal", torch.equal(prepared.image_grid_thw, saved["grid"]), end="; ")
    print("question equal", (folder / "question.txt").read_text() in question("a {cat}", 4))
    tokens, mask = inputs(saved["grid"])
    for name, dtype in DTYPES.items():
        text = TEXT | {"bos_token_id": None, "eos_token_id": None}
        config = Qwen2VLConfig(text_config=text, vision_config=VISION, image_token_id=IMAGE)
        model = HPSv3(load_file(folder / "weights.safetensors"), config, dtype).eval()
        with torch.no_grad():
            rewards = model(tokens, mask, saved["pixels"].to(dtype), saved["grid"], REWARD)
        print(name, "rewards", rewards[:, 0].tolist(), f"largest difference {(rewards - saved[name]).abs().max():.1e}")


def main() -> None:
    """Run one half of the proof."""
    half, folder = sys.argv[1], Path(sys.argv[2])
    packages = ("torch", "transformers", "hpsv3") if half == "original" else ("torch", "transformers")
    print(half, *(f"{package} {version(package)}" for package in packages))
    {"original": original, "ours": ours}[half](folder)


if __name__ == "__main__":
    main()
