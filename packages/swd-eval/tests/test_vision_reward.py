"""VisionReward: answers of small random weights, frames, pixels, the score, and folders that are not the released."""

import json
from pathlib import Path
from zlib import crc32

import av
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.transforms.v2 import functional as vision

from swd_data import Clip
from swd_eval.scores.cogvlm import load_cogvlm
from swd_eval.scores.vision_reward import (
    MEAN,
    STD,
    ask,
    choose_frames,
    frames_to_pixels,
    load_vision_reward,
    read_checklist,
    score,
    vision_reward,
)

pytest.importorskip("transformers")

YES, NO = 257, 258
CONFIG = {
    "architectures": ["CogVLMVideoForCausalLM"], "bos_token_id": 128000, "pad_token_id": 128002, "hidden_act": "silu",
    "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 3,
    "num_multi_query_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 128256,
    "vision_config": {
        "hidden_size": 32, "in_channels": 3, "intermediate_size": 48, "layer_norm_eps": 1e-6, "num_heads": 2,
        "num_hidden_layers": 2, "num_positions": 257, "patch_size": 14,
    },
}  # fmt: skip
QUESTIONS = ['Does it meet "[[prompt]]"?\n', *(f"Question {n} of {'words ' * n}\n" for n in range(0, 12, 2)), "Is it?"]
PROMPTS = ["a cat", "a dog with [brackets]", "one frame"]
# Of proofs/vision_reward.py: the first logits of the first question, and what the original generated.
LOGITS = [
    [0.5758888, -0.2686726, 0.6888548], [0.2422374, -0.0663866, 0.3169550], [1.4766260, 0.3195383, -0.7571737],
]  # fmt: skip
ROWS = [[-0.35, 7] + [0] * 8, [-0.35, 0] + [0] * 8, [0.1, 4, 0, 0, 0, 1, 1, 1, 1, 0]]


def biased(name, shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def released_shapes():
    """Return the names and shapes of a small checkpoint in the released form."""
    eye, shapes = "model.vision.", {"model.embed_tokens.weight": (128256, 64), "model.norm.weight": (64,)}
    for layer in (f"model.layers.{number}." for number in range(3)):
        names = (
            "mlp.language_mlp.gate_proj",
            "mlp.language_mlp.up_proj",
            "input_layernorm",
            "post_attention_layernorm",
        )
        for name, shape in zip(names, [(96, 64), (96, 64), (64,), (64,)], strict=True):
            shapes[f"{layer}{name}.weight"] = shape
        shapes[f"{layer}mlp.language_mlp.down_proj.weight"] = (64, 96)
        shapes[f"{layer}self_attn.language_expert_query_key_value.weight"] = (128, 64)
        shapes[f"{layer}self_attn.language_expert_dense.weight"] = (64, 64)
    for layer in (f"{eye}transformer.layers.{number}." for number in range(2)):
        sizes = {"attention.query_key_value": (96, 32), "attention.dense": (32, 32), "mlp.fc1": (48, 32)}
        sizes |= {"mlp.fc2": (32, 48), "input_layernorm": (32,), "post_attention_layernorm": (32,)}
        for name, shape in sizes.items():
            shapes |= biased(layer + name, shape)
    shapes |= biased(f"{eye}patch_embedding.proj", (32, 3, 14, 14)) | biased(f"{eye}conv", (32, 32, 2, 2))
    shapes |= biased(f"{eye}linear_proj.norm1", (64,)) | {f"{eye}patch_embedding.cls_embedding": (1, 32)}
    shapes |= {f"{eye}patch_embedding.position_embedding.weight": (257, 32)}
    widths = {"linear_proj": (64, 32), "dense_h_to_4h": (96, 64), "gate_proj": (96, 64), "dense_4h_to_h": (64, 96)}
    shapes |= {f"{eye}linear_proj.{name}.weight": shape for name, shape in widths.items()}
    return shapes | {f"{eye}boi": (1, 1, 64), f"{eye}eoi": (1, 1, 64), "lm_head.weight": (128256, 64)}


def released_weights():
    """Return random weights as in proofs/vision_reward.py: yes, no and anything else are likely answers."""
    state = {}
    for name, shape in released_shapes().items():
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(crc32(name.encode())))
        if name == "lm_head.weight":
            noise[YES] *= 8
            noise[NO] = -noise[YES]
        is_norm = "norm" in name and name.endswith("weight")
        state[name] = 1 + 0.1 * noise if is_norm else noise / (shape[-1] if len(shape) > 1 else 100) ** 0.5
    frequencies = 500000 ** (-torch.arange(0, 16, 2) / 16)
    return state | {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": frequencies.clone() for n in range(3)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Return a folder in the released form, with the questions of the proof."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("weights") / "VisionReward-Video"
    folder.mkdir()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: index for index, word in enumerate([*letters, "ye", "yes", "no"])}
    tokenizer = Tokenizer(models.BPE(words, [("y", "e"), ("ye", "s"), ("n", "o")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    state = released_weights()
    vision_part = {name for name in state if name.startswith("model.vision")}
    for number, names in enumerate([vision_part, state.keys() - vision_part], 1):
        save_file({name: state[name] for name in names}, folder / f"model-0000{number}-of-00002.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    write_checklist(folder, QUESTIONS, [number / 10 for number in range(len(QUESTIONS))])
    return folder


def write_checklist(folder, questions, coefficients):
    (folder / "VisionReward_video_qa_select.txt").write_text("".join(questions))
    (folder / "weight.json").write_text(json.dumps(coefficients))


def videos():
    generator = torch.Generator().manual_seed(0)
    sizes = ((3, 300, 517), (12, 480, 270), (1, 224, 224))
    return [torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8) for size in sizes]


def write_video(path: Path, num: int, fps: int) -> Path:
    """Write a video whose frames get lighter."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for level in np.linspace(0, 240, num).astype(np.uint8):
            frame = av.VideoFrame.from_ndarray(np.full((32, 64, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_logits_are_those_of_the_original_code(checkpoint):
    network, text = load_cogvlm(released_weights(), CONFIG, torch.float32), _letters()
    for frames, prompt, frozen in zip(videos(), PROMPTS, LOGITS, strict=True):
        with torch.no_grad():
            cache, start = network.watch(frames_to_pixels(frames), [text(str(time)) for time in range(len(frames))])
            first = network.ask(cache, start, text(ask(QUESTIONS[0], prompt)))
            network.ask(cache, start, text("another question"))
            again = network.ask(cache, start, text(ask(QUESTIONS[0], prompt)))
        torch.testing.assert_close(first[:3], torch.tensor(frozen), rtol=0, atol=1e-4)
        torch.testing.assert_close(again, first, rtol=0, atol=1e-5)


def _letters():
    from tokenizers import pre_tokenizers

    letters, space = sorted(pre_tokenizers.ByteLevel.alphabet()), {" ": "\u0120", "\n": "\u010a"}
    return lambda text: [letters.index(space.get(letter, letter)) for letter in text]


def test_answers_are_those_that_the_original_code_generated(checkpoint):
    _, run = load_vision_reward(checkpoint, "cpu", torch.float32)
    rows = run([frames_to_pixels(frames) for frames in videos()], PROMPTS)
    torch.testing.assert_close(rows, torch.tensor(ROWS))


def test_a_video_file_is_scored_from_its_full_seconds(checkpoint, tmp_path):
    measure = vision_reward(checkpoint.parent, "cpu")
    assert measure.fields[:3] == ("visionreward", "visionreward-unclear", "visionreward-01")
    assert measure.dim == len(measure.fields) == 2 + len(QUESTIONS)
    prepare, run = load_vision_reward(checkpoint, "cpu", torch.float32)
    pixels = prepare(Clip.open(write_video(tmp_path / "a.mp4", 17, 8)))
    levels = (pixels * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]).mean((1, 2, 3)) * 255
    assert pixels.shape == (3, 3, 224, 224)
    assert (levels - torch.tensor([0.0, 120.0, 240.0])).abs().max() < 4
    assert run([pixels], ["a cat"]).shape == (1, measure.dim)


def test_pixels_are_resized_and_cropped_as_torchvision_does():
    for frames, size in zip(videos(), [(224, 386), (398, 224), (224, 224)], strict=True):
        pixels = vision.normalize(frames.permute(0, 3, 1, 2) / 255, MEAN, STD)
        expected = vision.center_crop(vision.resize(pixels, list(size), antialias=False), [224, 224])
        torch.testing.assert_close(frames_to_pixels(frames), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("num_frames", "fps"), [(81, 16), (124, 24), (49, 8), (1, 30), (13, 25), (960, 24), (100, 30)])
def test_frames_are_those_nearest_to_full_seconds(num_frames, fps):
    times = [index / fps for index in range(num_frames)]
    nearest = [min(range(num_frames), key=lambda index: abs(times[index] - second)) for second in range(99)]
    assert choose_frames(num_frames, float(fps)) == nearest[: min(24, round(times[-1]) + 1)]


def test_videos_of_the_paper_give_six_frames():
    assert choose_frames(81, 16.0) == [0, 16, 32, 48, 64, 80]


def test_the_score_is_the_mean_of_signed_weights():
    coefficients = torch.tensor([3.0, 1.0, 0.5, 0.1], dtype=torch.float64)
    assert float(score(torch.ones(4, dtype=torch.bool), coefficients)) == pytest.approx(4.6 / 4)
    assert float(score(torch.zeros(4, dtype=torch.bool), coefficients)) == pytest.approx(-4.6 / 4)
    assert float(score(torch.tensor([True, False, True, False]), coefficients)) == pytest.approx((3.5 - 1.1) / 4)


def test_questions_keep_their_newlines_and_take_the_prompt(checkpoint):
    questions, coefficients = read_checklist(checkpoint)
    assert ask(questions[0], "a [[cat]]") == 'Question: Does it meet "a [[cat]]"?\n Answer:'
    assert ask(questions[-1], "a cat") == "Question: Is it? Answer:"
    assert coefficients.tolist() == [number / 10 for number in range(8)]


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"zai-org/VisionReward-Video \(about 25 GB\)"):
        vision_reward(tmp_path, "cpu")
    (tmp_path / "VisionReward-Video").mkdir()
    with pytest.raises(ValueError, match=r"expected VisionReward_video_qa_select\.txt in .*: copy it from"):
        vision_reward(tmp_path, "cpu")
    write_checklist(tmp_path / "VisionReward-Video", QUESTIONS, [1.0])
    with pytest.raises(ValueError, match=r"expected 8 weights, one a question, in .*, got 1"):
        vision_reward(tmp_path, "cpu")


def test_weights_of_another_model_are_refused(checkpoint):
    state = released_weights()
    eyeless = {name: value for name, value in state.items() if "vision" not in name}
    with pytest.raises(
        ValueError, match=r"expected \(1, 1, 64\) as vision\.boi of CogVLMVideoForCausalLM, got nothing$"
    ):
        load_cogvlm(eyeless, CONFIG, torch.float32)
    expert = {"model.layers.0.mlp.vision_mlp.up_proj.weight": torch.zeros(1)}  # of CogVLM2 for images
    with pytest.raises(ValueError, match=r"expected nothing as language\.layers\.0\.mlp\.vision_mlp"):
        load_cogvlm(state | expert, CONFIG, torch.float32)
    with pytest.raises(ValueError, match="expected a configuration of CogVLMVideoForCausalLM, got None"):
        load_cogvlm({}, {}, torch.float32)
