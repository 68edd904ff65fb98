"""VideoReward gives what the original code gave, and refuses what is not its checkpoint."""

import json
from pathlib import Path
from zlib import crc32

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from swd_data import Clip
from swd_eval.scores.video_reward import (
    FIELDS,
    VIDEO,
    Settings,
    frame_indices,
    load_video_reward,
    merge,
    patchify,
    question,
    resize,
    video_reward,
)

transformers = pytest.importorskip("transformers")

VIDEOS = {"slow.mkv": (240, 416, 70, 24), "short.mkv": (128, 96, 5, 8)}
PROMPTS = ["a cat", "a dog with {braces} that runs through a field of flowers"]
FROZEN = [[0.398959, 0.625212, 0.144623], [0.311746, 0.032078, -0.533168]]  # proofs/video_reward.txt
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", VIDEO]
WORDS = 256 + len(SPECIAL) + 3
TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": WORDS, "bos_token_id": None, "eos_token_id": None,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
}  # fmt: skip
VISION = {"depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": 64}
SETTINGS = {
    "data_config": {"max_frame_pixels": 448 * 448, "fps": 2.0},
    "peft_lora_config": {"lora_r": 8, "lora_alpha": 16},
    "inference_config": {
        "VQ_mean": 3.6757, "VQ_std": 2.2476, "MQ_mean": 1.1646, "MQ_std": 1.3811, "TA_mean": 2.8105, "TA_std": 2.5121,
    },
}  # fmt: skip


def config():
    tokens = {"image_token_id": 256 + SPECIAL.index("<|image_pad|>"), "video_token_id": 256 + SPECIAL.index(VIDEO)}
    return transformers.Qwen2VLConfig(text_config=TEXT, vision_config=VISION, **tokens)


def write_video(path: Path, height: int, width: int, num_frames: int, fps: int) -> Path:
    """Write coloured stripes that move, without loss, as proofs/video_reward.py does."""
    y, x, hue = np.mgrid[:height, :width, :3]
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        for index in range(num_frames):
            pixels = np.abs((x * (3 + hue) + y * 2 + index * 7) % 510 - 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def weights() -> dict[str, Tensor]:
    """Return weights under the released names, those of peft, filled as in proofs/video_reward.py."""
    with torch.device("meta"):
        trunk = transformers.Qwen2VLModel(config()).state_dict()
    shapes = {"rm_head.weight": (1, 64)}
    for name, value in trunk.items():
        name = name.replace("language_model.", "model.")
        module, _, kind = name.rpartition(".")
        adapted = name.startswith("model.layers.") and module.endswith("_proj")
        shapes[f"{module}.base_layer.{kind}" if adapted else name] = tuple(value.shape)
        if adapted and kind == "weight":
            shapes |= {f"{module}.lora_A.default.weight": (8, value.shape[1])}
            shapes |= {f"{module}.lora_B.default.weight": (value.shape[0], 8)}
    state = {}
    for name, shape in ((f"base_model.model.{name}", shape) for name, shape in shapes.items()):
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(crc32(name.encode())))
        is_norm = any(part in name for part in ("norm", "ln_q")) and name.endswith("weight")
        state[name] = 1 + 0.1 * noise if is_norm else noise / (shape[-1] if len(shape) > 1 else 100) ** 0.5
    return state


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of weights with a tiny VideoReward in the released layout."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    root = tmp_path_factory.mktemp("weights")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=SPECIAL[0], additional_special_tokens=SPECIAL[1:]
    ).save_pretrained(root / "Qwen2-VL-2B-Instruct")
    config().save_pretrained(root / "Qwen2-VL-2B-Instruct")
    checkpoint = root / "VideoReward/checkpoint-11352"
    checkpoint.mkdir(parents=True)
    torch.save(weights(), checkpoint / "model.pth")
    (root / "VideoReward/model_config.json").write_text(json.dumps(SETTINGS))
    return root


@pytest.fixture(scope="module")
def judge(folder: Path):
    settings = Settings.read(folder / "VideoReward/model_config.json")
    checkpoint = folder / "VideoReward/checkpoint-11352/model.pth"
    return load_video_reward(checkpoint, settings, folder / "Qwen2-VL-2B-Instruct", "cpu", torch.float32)


def test_rewards_are_those_that_the_original_code_gave(judge, tmp_path: Path) -> None:
    prepare, run = judge
    videos = [prepare(Clip.open(write_video(tmp_path / name, *shape))) for name, shape in VIDEOS.items()]
    rows = run(videos, PROMPTS)
    torch.testing.assert_close(rows[:, :3], torch.tensor(FROZEN), rtol=0, atol=1e-4)
    mean, std = (
        torch.tensor([SETTINGS["inference_config"][f"{x}_{y}"] for x in ("VQ", "MQ", "TA")]) for y in ("mean", "std")
    )
    torch.testing.assert_close(rows[:, 3:6] * std + mean, rows[:, :3])
    torch.testing.assert_close(rows[:, 6], rows[:, 3:6].sum(1))
    alone = torch.cat([run([video], [prompt]) for video, prompt in zip(videos, PROMPTS, strict=True)])
    torch.testing.assert_close(rows, alone, rtol=0, atol=1e-4)


def test_the_measure_names_its_numbers_and_its_weights(folder: Path, tmp_path: Path) -> None:
    measure = video_reward(folder, "cpu")
    assert measure.about["weights"]["file"] == "model.pth"
    assert measure.about["weights"]["known"] is False
    prepare, run = measure.load()
    rows = run([prepare(Clip.open(write_video(tmp_path / "a.mkv", *VIDEOS["short.mkv"])))], PROMPTS[1:])
    assert rows.shape == (1, measure.dim) == (1, len(FIELDS))


@pytest.mark.parametrize(
    ("num_frames", "fps", "expected"),
    [
        (17, 24, [0, 5, 11, 16]),
        (5, 8, [0, 1, 3, 4]),
        (3, 8, [0, 2]),
        (10, 4, [0, 3, 6, 9]),
        (12, 4, [0, 2, 4, 7, 9, 11]),
    ],
)
def test_two_frames_a_second_are_shown_and_at_least_four(num_frames: int, fps: float, expected: list[int]) -> None:
    assert frame_indices(Clip(Path("a.mp4"), float(fps), num_frames), 2.0) == expected


def test_at_most_768_frames_are_shown_and_one_is_too_few() -> None:
    assert len(frame_indices(Clip(Path("a.mp4"), 2.0, 2001), 2.0)) == 768
    with pytest.raises(ValueError, match=r"expected at least 2 frames in a\.mp4, got 1"):
        frame_indices(Clip(Path("a.mp4"), 2.0, 1), 2.0)


def test_patches_are_those_of_the_processor_for_videos() -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    frames = torch.randint(0, 256, (6, 100, 301, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels, grid = patchify(resize(frames, 448 * 448))
    assert grid.tolist() == [[3, 14, 40]]
    bicubic = functional.InterpolationMode.BICUBIC
    resized = functional.resize(frames.permute(0, 3, 1, 2), [196, 560], interpolation=bicubic, antialias=True)
    processor = transformers.Qwen2VLVideoProcessor(do_resize=False, do_sample_frames=False)
    expected = processor([resized], return_tensors="pt")
    assert torch.equal(expected.video_grid_thw, grid)
    torch.testing.assert_close(pixels, expected.pixel_values_videos, rtol=0, atol=1e-6)


def test_low_rank_updates_are_added_to_the_weights() -> None:
    state = {
        "base_model.model.model.a.base_layer.weight": torch.eye(2),
        "base_model.model.model.a.base_layer.bias": torch.ones(2),
        "base_model.model.model.a.lora_A.default.weight": torch.tensor([[1.0, 2.0]]),
        "base_model.model.model.a.lora_B.default.weight": torch.tensor([[3.0], [4.0]]),
        "base_model.model.rm_head.weight": torch.ones(1, 2),
    }
    merged = merge(state, 2.0)
    assert merged.keys() == {"model.a.weight", "model.a.bias", "rm_head.weight"}
    assert merged["model.a.weight"].tolist() == [[7, 12], [8, 17]]


def test_the_question_holds_the_prompt_and_the_videos_tokens() -> None:
    text = question("a {cat}", 96)
    assert text.count(VIDEO) == 96
    assert "Textual prompt - a {cat}\nPlease provide the ratings of Text Alignment: <|TA_reward|>\n" in text
    assert text.index("<|VQ_reward|>") < text.index("<|MQ_reward|>") < text.index("<|TA_reward|>")


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected KwaiVGI/VideoReward .* got nothing there"):
        video_reward(tmp_path, "cpu")
    (tmp_path / "Qwen2-VL-2B-Instruct").symlink_to(folder / "Qwen2-VL-2B-Instruct")
    (tmp_path / "VideoReward/checkpoint-1").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"got 0 checkpoint-\*/model\.pth: download it"):
        video_reward(tmp_path, "cpu")
    (tmp_path / "VideoReward/checkpoint-1/model.pth").touch()
    with pytest.raises(FileNotFoundError, match=r"got no model_config\.json"):
        video_reward(tmp_path, "cpu")
    (tmp_path / "VideoReward/model_config.json").write_text('{"data_config": {}}')
    with pytest.raises(ValueError, match="expected the settings of VideoReward in"):
        video_reward(tmp_path, "cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rm_head.weight": None, "rm_head.0.weight": torch.zeros(4, 64)}, r"give those of KwaiVGI/VideoReward$"),
        ({"model.norm.weight": None}, r"got 1 not so: language_model\.norm\.weight"),
        ({"model.norm.weight": torch.ones(65)}, r"got 1 not so: language_model\.norm\.weight"),
    ],
)
def test_another_checkpoint_is_refused(folder: Path, tmp_path: Path, change: dict, message: str) -> None:
    state = weights() | {f"base_model.model.{name}": value for name, value in change.items()}
    torch.save({name: value for name, value in state.items() if value is not None}, tmp_path / "model.pth")
    settings = Settings.read(folder / "VideoReward/model_config.json")
    with pytest.raises(ValueError, match=message):
        load_video_reward(tmp_path / "model.pth", settings, folder / "Qwen2-VL-2B-Instruct", "cpu")
