"""VideoReward (Liu et al., 2025, "Improving Video Generation with Human Feedback") over transformers' Qwen2-VL.

`assets/video_reward.txt`, the question that the model was trained with, is from VideoAlign (MIT License, see the file
beside it).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from swd_data import Clip, read_object
from swd_eval.measure import Measure, Prepare, Run, require
from swd_eval.scores.qwen import chat, hidden_states, load_tokenizer, load_trunk
from swd_eval.weights import QWEN_2B, VIDEO_REWARD, read_state

REWARDS, VIDEO = ["<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>"], "<|video_pad|>"
FIELDS = tuple(f"videoreward{part}" for part in ("-vq-raw", "-mq-raw", "-ta-raw", "-vq", "-mq", "-ta", ""))
MIN_FRAMES, MAX_FRAMES, MIN_PIXELS = 4, 768, 128 * 28 * 28


@dataclass(frozen=True)
class Settings:
    """What the checkpoint's `model_config.json` says of how it is used."""

    rate: float
    """Frames a second that the model is shown."""
    max_pixels: int
    scale: float
    """Of its low-rank updates."""
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def read(cls, path: Path) -> "Settings":
        """Read the file.

        Raises:
            ValueError: it is another model's.
        """
        config = read_object(path, "the settings of VideoReward")
        try:
            data, lora, norm = config["data_config"], config["peft_lora_config"], config["inference_config"]
            mean, std = (tuple(norm[f"{name}_{part}"] for name in ("VQ", "MQ", "TA")) for part in ("mean", "std"))
            return cls(data["fps"], data["max_frame_pixels"], lora["lora_alpha"] / lora["lora_r"], mean, std)
        except (KeyError, TypeError) as error:
            raise ValueError(f"expected the settings of VideoReward in {path}, got none: {error!r}") from error


class VideoReward(nn.Module):
    """Qwen2-VL without its language head, and one linear layer over the hidden states of three tokens."""

    head: Tensor

    def __init__(self, state: Mapping[str, Tensor], scale: float, config: Any, dtype: torch.dtype) -> None:
        super().__init__()
        merged = merge(state, scale)
        head = merged.get("rm_head.weight")
        if head is None or len(head) != 1:
            raise ValueError(f"expected the weights of VideoReward, got others: give those of {VIDEO_REWARD.id}")
        self.trunk = load_trunk(merged, config, dtype)
        # In float32, where the released code rounds its rewards to bfloat16: to 1/64 between 2 and 4.
        self.register_buffer("head", head.float())

    def forward(self, tokens: Tensor, mask: Tensor, pixels: Tensor, grid: Tensor, rewards: Tensor) -> Tensor:
        """Return the rewards (B, 3) at the tokens `rewards`, not normalised."""
        hidden = hidden_states(self.trunk, tokens, mask, pixel_values_videos=pixels, video_grid_thw=grid)
        found = hidden[torch.isin(tokens, rewards)].float()
        return functional.linear(found, self.head).view(-1, len(rewards))


def video_reward(weights: Path, device: str) -> Measure:
    """Return VideoReward: visual quality, motion quality and text alignment, as they come and normalised; their sum."""
    require("video", "transformers", "av")
    folder, texts = VIDEO_REWARD.find(weights), QWEN_2B.find(weights)
    checkpoint, settings = find_checkpoint(folder), Settings.read(folder / "model_config.json")
    about = {
        "weights": VIDEO_REWARD.note(checkpoint),
        "processor": QWEN_2B.note(texts),
        "preprocessing": f"{settings.rate:g} frames a second, torch bicubic antialiased to at most "
        f"{settings.max_pixels} pixels, Qwen2VLImageProcessorPil",
        "dtype": "bfloat16 trunk with its LoRA merged, float32 head",
        "normalisation": {"mean": settings.mean, "std": settings.std},
    }
    return Measure(
        "videoreward", about, lambda: load_video_reward(checkpoint, settings, texts, device), len(FIELDS), FIELDS
    )


def find_checkpoint(folder: Path) -> Path:
    """Return the weights in the folder of the repository.

    Raises:
        FileNotFoundError: they, or their settings, are not there.
    """
    found = sorted(folder.glob("checkpoint-*/model.pth"))
    if len(found) != 1 or not (folder / "model_config.json").exists():
        what = f"{len(found)} checkpoint-*/model.pth" if len(found) != 1 else "no model_config.json"
        raise FileNotFoundError(f"expected one checkpoint of {VIDEO_REWARD.id} in {folder}, got {what}: download it")
    return found[0]


def load_video_reward(
    weights: Path, settings: Settings, processor: Path, device: str, dtype: torch.dtype = torch.bfloat16
) -> tuple[Prepare, Run]:
    """Load the released weights, and Qwen2-VL's configuration and tokenizer from a folder."""
    from transformers import Qwen2VLConfig

    config = Qwen2VLConfig.from_pretrained(processor, local_files_only=True)
    network = VideoReward(read_state(weights), settings.scale, config, dtype).to(device).eval()
    tokenizer, numbers = load_tokenizer(processor, REWARDS)
    rewards, mean, std = torch.tensor(numbers, device=device), torch.tensor(settings.mean), torch.tensor(settings.std)

    def prepare(video: Clip) -> tuple[Tensor, Tensor]:
        frames = torch.from_numpy(video.frames(frame_indices(video, settings.rate)))
        return patchify(resize(frames, settings.max_pixels))

    @torch.inference_mode()
    def run(videos: Sequence[tuple[Tensor, Tensor]], prompts: Sequence[str]) -> Tensor:
        pixels, grids = (torch.cat(parts).to(device) for parts in zip(*videos, strict=True))
        texts = [question(prompt, int(grid.prod()) // 4) for prompt, grid in zip(prompts, grids, strict=True)]
        text = tokenizer(texts, padding=True, return_tensors="pt").to(device)
        raw = network(text.input_ids, text.attention_mask, pixels.to(dtype), grids, rewards).cpu()
        normal = (raw - mean) / std
        return torch.cat([raw, normal, normal.sum(1, keepdim=True)], dim=1)

    return prepare, run


def frame_indices(video: Clip, rate: float) -> list[int]:
    """Return which frames the model is shown: an even number, `rate` a second, at least 4 of a video that has them.

    Raises:
        ValueError: the video has one frame.
    """
    if video.num_frames < 2:
        raise ValueError(f"expected at least 2 frames in {video.path}, got {video.num_frames}")
    most = min(MAX_FRAMES, video.num_frames) // 2 * 2
    wanted = min(max(video.num_frames / video.fps * rate, MIN_FRAMES), most)
    indices: list[int] = torch.linspace(0, video.num_frames - 1, round(wanted / 2) * 2).round().long().tolist()
    return indices


def resize(frames: Tensor, max_pixels: int) -> Tensor:
    """Return frames (T, H, W, 3) at a size that 28 divides, as torchvision resizes uint8."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    size = smart_resize(*frames.shape[1:3], min_pixels=MIN_PIXELS, max_pixels=max_pixels)
    resized = functional.interpolate(frames.permute(0, 3, 1, 2).float(), size, mode="bicubic", antialias=True)
    return resized.clamp(0, 255).round().byte().permute(0, 2, 3, 1)


def patchify(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return the patches (N, 1176) of an even number of frames, two frames deep, and their grid (1, 3)."""
    from transformers import Qwen2VLImageProcessorPil

    # Of pictures it makes patches of two equal frames: the first of each is kept, and of two frames one patch made.
    each = Qwen2VLImageProcessorPil(do_resize=False)(list(frames.numpy()), return_tensors="pt")
    patches = each.pixel_values.view(len(frames) // 2, 2, -1, 3, 2, 14 * 14)[:, :, :, :, 0].permute(0, 2, 3, 1, 4)
    _, height, width = each.image_grid_thw[0].tolist()
    return patches.reshape(-1, math.prod(patches.shape[2:])), torch.tensor([[len(frames) // 2, height, width]])


def question(prompt: str, num_tokens: int) -> str:
    """Return what the model is asked of a video that takes so many tokens."""
    return chat(_instruction().format(text_prompt=prompt), VIDEO, num_tokens)


def merge(state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Return weights under the base model's names, with peft's low-rank updates added in float32."""
    names = {name: name.removeprefix("base_model.model.").replace(".base_layer.", ".") for name in state}
    merged = {names[name]: value for name, value in state.items() if ".lora_" not in name}
    for name in state:
        module, found, rest = name.partition(".lora_A.")
        if found:
            target = names[f"{module}.base_layer.weight"]
            update = state[f"{module}.lora_B.{rest}"].float() @ state[name].float()
            merged[target] = (merged[target].float() + scale * update).to(merged[target].dtype)
    return merged


@cache
def _instruction() -> str:
    return files("swd_eval").joinpath("assets/video_reward.txt").read_text(encoding="utf-8")
