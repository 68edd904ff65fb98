"""VideoReward over transformers 5 against VideoAlign's `inference.py` on transformers 4.45.2, with random weights.

Two environments, and a clone of KwaiVGI/VideoAlign:

    python proofs/video_reward.py original FOLDER CLONE   # transformers 4.45.2, torchvision, peft 0.13, decord, av
    python proofs/video_reward.py ours FOLDER             # swd-eval[video]

FOLDER carries videos, weights and rewards from one to the other, in the layout of the released checkpoint: the model
is small, and has every part of the large one. Of CLONE runs everything from the path of a video to the normalised
reward, but for flash attention, which a CPU does not have. video_reward.txt is from a CLONE put together of what
`inference.py` imports, copied from public repositories that carry these files.
"""

import json
import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from zlib import crc32

import av
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
VIDEOS = {"slow.mkv": (240, 416, 70, 24), "short.mkv": (128, 96, 5, 8), "large.mp4": (540, 962, 33, 16)}
PROMPTS = ["a cat", "a dog with {braces} that runs through a field of flowers", "no"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
}  # fmt: skip
VISION = {"depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": 64}
SETTINGS = {
    "data_config": {
        "meta_data": "", "data_dir": "", "max_frame_pixels": 448 * 448, "fps": 2.0, "eval_dim": ["VQ", "MQ", "TA"],
        "prompt_template_type": "detailed_special", "sample_type": "uniform",
    },
    "model_config": {"output_dim": 1, "use_special_tokens": True, "reward_token": "special"},
    "peft_lora_config": {
        "lora_enable": True, "lora_r": 8, "lora_alpha": 16,
        "lora_namespan_exclude": ["lm_head", "rm_head", "embed_tokens", "visual"],
    },
    "inference_config": {
        "VQ_mean": 3.6757, "VQ_std": 2.2476, "MQ_mean": 1.1646, "MQ_std": 1.3811, "TA_mean": 2.8105, "TA_std": 2.5121,
    },
}  # fmt: skip
CHAT = (  # Qwen2-VL's, without the branch of messages that are plain strings
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a "
    "helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% for content in message['content'] %}{% if content['type'] == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ content['text'] }}"
    "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def fill(name: str, like: Tensor) -> Tensor:
    """Return random weights that depend on the name alone."""
    noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(crc32(name.encode())))
    is_norm = any(part in name for part in ("norm", "ln_q")) and name.endswith("weight")
    return 1 + 0.1 * noise if is_norm else noise / (like.shape[-1] if like.ndim > 1 else 100) ** 0.5


def write_video(path: Path, height: int, width: int, num_frames: int, fps: int) -> None:
    """Write coloured stripes that move; .mkv without loss."""
    y, x, hue = np.mgrid[:height, :width, :3]
    codec, layout = ("ffv1", "bgr0") if path.suffix == ".mkv" else ("libx264", "yuv420p")
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, layout
        for index in range(num_frames):
            pixels = np.abs((x * (3 + hue) + y * 2 + index * 7) % 510 - 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def write_base(folder: Path) -> None:
    """Write what the original reads of Qwen2-VL-2B: configuration, weights, tokenizer, processor."""
    from tokenizers import pre_tokenizers
    from transformers import (
        Qwen2TokenizerFast,
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
    )

    folder.mkdir()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    (folder / "vocab.json").write_text(json.dumps({letter: index for index, letter in enumerate(letters)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    paths = (str(folder / name) for name in ("vocab.json", "merges.txt"))
    fast = Qwen2TokenizerFast(*paths, additional_special_tokens=[*SPECIAL[1:], "<|video_pad|>"])
    config = Qwen2VLConfig(
        **TEXT, vision_config=VISION, vocab_size=400, image_token_id=fast.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=fast.convert_tokens_to_ids("<|video_pad|>"),
    )  # fmt: skip
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    Qwen2VLProcessor(Qwen2VLImageProcessor(), fast, chat_template=CHAT).save_pretrained(folder)


def import_original(clone: str) -> Any:
    """Return the module `inference` of the clone."""
    for name in ("trl", "datasets", "pandas", "deepspeed"):
        sys.modules[name] = MagicMock(__spec__=ModuleSpec(name, None))
    sys.modules["trl"].RewardTrainer = object
    sys.modules["trl"].get_quantization_config = lambda _: None
    sys.path.insert(0, clone)
    import inference
    from utils import TrainingConfig

    inference.TrainingConfig = lambda **settings: TrainingConfig(**settings | {"disable_flash_attn2": True})
    return inference


def original(folder: Path, clone: str) -> None:
    """Write videos, weights, and the original's inputs and rewards."""
    inference = import_original(clone)
    for name, shape in VIDEOS.items():
        write_video(folder / name, *shape)
    write_base(folder / "Qwen2-VL-2B-Instruct")
    checkpoint = folder / "VideoReward/checkpoint-1/model.pth"
    checkpoint.parent.mkdir(parents=True)
    saved = {}
    for name, dtype in DTYPES.items():
        base = {"model_name_or_path": str(folder / "Qwen2-VL-2B-Instruct"), "torch_dtype": name}
        settings = SETTINGS | {"model_config": SETTINGS["model_config"] | base}
        (folder / "VideoReward/model_config.json").write_text(json.dumps(settings))
        real = inference.load_model_from_checkpoint
        inference.load_model_from_checkpoint = lambda model, *_: (model, "0")  # as there is none yet
        model = inference.VideoVLMRewardInference(str(folder / "VideoReward"), device="cpu", dtype=dtype).model
        torch.save({key: fill(key, value).to(dtype) for key, value in model.state_dict().items()}, checkpoint)
        inference.load_model_from_checkpoint = real
        judge = inference.VideoVLMRewardInference(str(folder / "VideoReward"), device="cpu", dtype=dtype)
        paths = [str(folder / video) for video in VIDEOS]
        with torch.no_grad():
            raw, normal = (judge.reward(paths, PROMPTS, use_norm=norm) for norm in (False, True))
        rows = [[*list(a.values())[:3], *b.values()] for a, b in zip(raw, normal, strict=True)]
        saved[name] = torch.tensor(rows)
        print(name, "original rewards", saved[name][:, :3].tolist())
        checkpoint.rename(folder / f"{name}.pth")
    batch = judge.prepare_batch(paths, PROMPTS)
    inputs = {"pixels": batch.pixel_values_videos, "grid": batch.video_grid_thw, "tokens": batch.input_ids}
    (folder / "text.txt").write_text("\n\n".join(judge.processor.tokenizer.batch_decode(batch.input_ids)))
    save_file(saved | inputs, folder / "rewards.safetensors")


def ours(folder: Path) -> None:
    """Print how far ours are from the original's."""
    from swd_data import Clip
    from swd_eval.scores.qwen import load_tokenizer
    from swd_eval.scores.video_reward import REWARDS, Settings, load_video_reward, question

    saved, processor = load_file(folder / "rewards.safetensors"), folder / "Qwen2-VL-2B-Instruct"
    settings = Settings.read(folder / "VideoReward/model_config.json")
    for name, dtype in DTYPES.items():
        prepare, run = load_video_reward(folder / f"{name}.pth", settings, processor, "cpu", dtype)
        videos = [prepare(Clip.open(folder / video)) for video in VIDEOS]
        if name == "float32":
            pixels, grids = (torch.cat(parts) for parts in zip(*videos, strict=True))
            tokens = load_tokenizer(processor, REWARDS)[0](
                [question(prompt, int(grid.prod()) // 4) for prompt, grid in zip(PROMPTS, grids, strict=True)],
                padding=True,
                return_tensors="pt",
            ).input_ids
            print("pixels: largest difference", f"{(pixels - saved['pixels']).abs().max():.1e};", end=" ")
            print("grids equal", torch.equal(grids, saved["grid"]), end="; ")
            print("tokens equal", torch.equal(tokens, saved["tokens"]))
        rows = run(videos, PROMPTS)
        print(name, "rewards", rows[:, :3].tolist())
        print(name, f"largest difference {(rows - saved[name]).abs().max():.1e} in all seven numbers")
    rounding = (saved["bfloat16"] - saved["float32"]).abs().max()
    print(f"bfloat16 from float32, both the original's: largest difference {rounding:.1e}")


def main() -> None:
    """Run one half of the proof."""
    half, folder = sys.argv[1], Path(sys.argv[2])
    packages = ["torch", "transformers", *(["peft", "decord"] if half == "original" else ["av"])]
    print(half, *(f"{package} {version(package)}" for package in packages))
    if half == "original":
        original(folder, sys.argv[3])
    else:
        ours(folder)


if __name__ == "__main__":
    main()
