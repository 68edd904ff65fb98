"""VisionReward for videos (Xu et al., 2024): the weighted yes and no of a language model that has watched the video.

The checkpoint is of CogVLM2-Video. The questions and their weights come from two files of the paper's repository,
`zai-org/VisionReward`, which the user puts beside it.
"""

from collections.abc import Sequence
from math import floor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from swd_data import Clip, read_json, read_object, read_text
from swd_eval.measure import Measure, Prepare, Run, require
from swd_eval.scores.cogvlm import load_cogvlm
from swd_eval.weights import VISION_REWARD, read_state

QUESTIONS, COEFFICIENTS = "VisionReward_video_qa_select.txt", "weight.json"
MAX_FRAMES = 24
SIZE = 224
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
YES, NO = "yes", "no"


def vision_reward(weights: Path, device: str) -> Measure:
    """Return VisionReward: its score, how many answers are neither yes nor no, and each answer as 1 for yes."""
    require("video", "av", "transformers")
    path = VISION_REWARD.find(weights)
    questions, _ = read_checklist(path)
    about = {
        "weights": VISION_REWARD.note(path),
        "preprocessing": f"1 frame a second, at most {MAX_FRAMES}; short side to {SIZE}, centre crop",
        "score": f"mean over {len(questions)} questions of +1 for yes, else -1, times a weight",
        "dtype": "bfloat16",
    }
    answers = (f"visionreward-{number:02d}" for number in range(1, len(questions) + 1))
    fields = ("visionreward", "visionreward-unclear", *answers)
    return Measure("visionreward", about, lambda: load_vision_reward(path, device), len(fields), fields)


def load_vision_reward(folder: Path, device: str, dtype: torch.dtype = torch.bfloat16) -> tuple[Prepare, Run]:
    """Load the released folder, with the two files of questions in it."""
    from transformers import PreTrainedTokenizerFast

    questions, coefficients = read_checklist(folder)
    state = {name: each for shard in sorted(folder.glob("*.safetensors")) for name, each in read_state(shard).items()}
    network = load_cogvlm(state, read_object(folder / "config.json"), dtype).to(device)
    # From the file alone: by the folder's config.json, transformers takes it for Mistral's and warns.
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    yes, no = tokenizer.convert_tokens_to_ids([YES, NO])

    def tokens(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    def prepare(video: Clip) -> Tensor:
        return frames_to_pixels(torch.from_numpy(video.frames(choose_frames(video.num_frames, video.fps))))

    def row(pixels: Tensor, prompt: str) -> Tensor:
        # Answers are one token, so the first of a greedy generation is all that counts.
        cache, start = network.watch(pixels.to(device, dtype), [tokens(str(second)) for second in range(len(pixels))])
        found = torch.tensor([int(network.ask(cache, start, tokens(ask(each, prompt))).argmax()) for each in questions])
        is_yes = found == yes
        unclear = ~is_yes & (found != no)
        return torch.stack([score(is_yes, coefficients), unclear.sum(), *is_yes]).float()

    @torch.inference_mode()
    def run(videos: Sequence[Tensor], prompts: Sequence[str]) -> Tensor:
        return torch.stack([row(pixels, prompt) for pixels, prompt in zip(videos, prompts, strict=True)])

    return prepare, run


def score(is_yes: Tensor, coefficients: Tensor) -> Tensor:
    """Return the mean of +1 for yes and -1 for anything else, each times its weight."""
    return ((2 * is_yes.double() - 1) * coefficients).mean()


def ask(question: str, prompt: str) -> str:
    """Return a question as the model is asked it; of `[[prompt]]` in it remains the video's prompt."""
    return f"Question: {question.replace('[[prompt]]', prompt)} Answer:"


def choose_frames(num_frames: int, fps: float) -> list[int]:
    """Return the frame nearest to each full second, of a video with a constant rate."""
    times = np.arange(num_frames) / fps
    num_seconds = min(round(float(times[-1])) + 1, MAX_FRAMES)
    return [int(np.abs(times - second).argmin()) for second in range(num_seconds)]


def frames_to_pixels(frames: Tensor) -> Tensor:
    """Map uint8 (T, H, W, 3) to (T, 3, 224, 224): normalised first, then resized bilinearly without antialiasing."""
    mean, std = (torch.tensor(each)[:, None, None, None] for each in (MEAN, STD))
    # Channels first, then frames, as the released code has them: torch rounds other layouts otherwise.
    pixels = (frames.permute(3, 0, 1, 2) / 255 - mean) / std
    height, width = pixels.shape[2:]
    size = (floor(height / width * SIZE), SIZE) if width < height else (SIZE, floor(width / height * SIZE))
    pixels = interpolate(pixels, size=size, mode="bilinear", align_corners=False)
    top, left = (round((length - SIZE) / 2) for length in size)
    return pixels[:, :, top : top + SIZE, left : left + SIZE].transpose(0, 1)


def read_checklist(folder: Path) -> tuple[list[str], Tensor]:
    """Read the questions, each with its newline as the model is asked it, and their weights.

    Raises:
        ValueError: the files are not there, or do not belong together.
    """
    missing = [name for name in (QUESTIONS, COEFFICIENTS) if not (folder / name).is_file()]
    if missing:
        source = "VisionReward_Video in zai-org/VisionReward"
        raise ValueError(f"expected {missing[0]} in {folder}, got nothing there: copy it from {source}")
    questions = read_text(folder / QUESTIONS).replace("\r\n", "\n").splitlines(keepends=True)
    found = read_json(folder / COEFFICIENTS, "a list of weights")
    if not isinstance(found, list) or not all(isinstance(each, int | float) for each in found):
        raise ValueError(f"expected a list of weights in {folder / COEFFICIENTS}, got other JSON")
    coefficients = torch.tensor(found, dtype=torch.float64)
    if coefficients.shape != (len(questions),):
        raise ValueError(f"expected {len(questions)} weights, one a question, in {folder}, got {len(coefficients)}")
    return questions, coefficients
