"""CogVLM2-Video over transformers 5 against the code beside the released weights, with random weights.

Two environments:

    python proofs/vision_reward.py original FOLDER CODE   # transformers 4.42.4, which the authors pin; einops
    python proofs/vision_reward.py ours FOLDER            # swd-eval[video]

CODE holds the released modeling_cogvlm.py, configuration_cogvlm.py, visual.py and util.py (on a CPU: with the Triton
kernel of util.py in torch). FOLDER carries a small checkpoint in the released form, inputs and logits from one to the
other. The second half also compares the full-size model with the sizes of the released files.
"""

import importlib
import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FULL_VISION = {
    "dropout_prob": 0.0, "hidden_act": "gelu", "hidden_size": 1792, "image_size": 224, "in_channels": 3,
    "intermediate_size": 15360, "layer_norm_eps": 1e-6, "num_heads": 16, "num_hidden_layers": 63, "num_positions": 257,
    "patch_size": 14,
}  # fmt: skip
FULL: dict[str, Any] = {
    "architectures": ["CogVLMVideoForCausalLM"], "bos_token_id": 128000, "eos_token_id": 128001, "pad_token_id": 128002,
    "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_multi_query_heads": 8, "rms_norm_eps": 1e-5, "vocab_size": 128256,
    "vision_config": FULL_VISION,
}  # fmt: skip
SMALL = FULL | {
    "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 3,
    "num_multi_query_heads": 2,
    "vision_config": FULL_VISION | {"hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "num_hidden_layers": 2},
}  # fmt: skip
FILES = [4976699712, 4999803504, 4915917160, 4956242104, 4115863248, 1050673280]  # of cogvlm2-llama3-caption
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
QUESTIONS = ['Does it meet "[[prompt]]"?\n', *(f"Question {n} of {'words ' * n}\n" for n in range(0, 12, 2)), "Is it?"]
PROMPTS = ["a cat", "a dog with [brackets]", "one frame"]
YES, NO = 257, 258  # in the tokenizer below


def fill(name: str, like: Tensor) -> Tensor:
    """Return random weights that depend on the name alone; yes, no and anything else are likely answers."""
    if name.endswith("inv_freq"):
        return like
    noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(crc32(name.encode())))
    if name == "lm_head.weight":
        noise[YES] *= 8
        noise[NO] = -noise[YES]
    is_norm = "norm" in name and name.endswith("weight")
    return 1 + 0.1 * noise if is_norm else noise / (like.shape[-1] if like.ndim > 1 else 100) ** 0.5


def tokenizer() -> Any:
    """Return a tokenizer of letters in which yes and no are one token each."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: index for index, word in enumerate([*letters, "ye", "yes", "no"])}
    made = Tokenizer(models.BPE(words, [("y", "e"), ("ye", "s"), ("n", "o")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return made


def videos() -> list[Tensor]:
    """Return frames (T, H, W, 3) of noise, wide, tall and square; twelve have times of two tokens."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((3, 300, 517), (12, 480, 270), (1, 224, 224))
    return [torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8) for size in sizes]


def original(folder: Path, code: Path) -> None:
    """Write checkpoints, pixels, logits and first generated tokens of the original."""
    sys.path.insert(0, str(code.resolve().parent))
    cls = importlib.import_module(f"{code.name}.modeling_cogvlm").CogVLMVideoForCausalLM
    for name, dtype in DTYPES.items():
        model = cls(cls.config_class(**SMALL))
        model.load_state_dict({key: fill(key, value) for key, value in model.state_dict().items()})
        model.to(dtype).save_pretrained(folder / name)
        tokenizer().save(str(folder / name / "tokenizer.json"))
        model = cls.from_pretrained(folder / name, torch_dtype=dtype).eval()
        frequencies = model.model.layers[0].self_attn.rotary_emb.inv_freq
        saved = dict(answers(model, dtype))
        save_file(saved, folder / f"{name}.safetensors")
        tokens = [int(value) for key, value in saved.items() if key.endswith("token")]
        kinds = f"{tokens.count(YES)} yes, {tokens.count(NO)} no"
        print(name, f"{len(tokens)} answers: {kinds}; frequencies {frequencies.dtype}, last {frequencies[-1].item()}")
        print("  first logits", [saved[f"{place} 0 logits"][:3].tolist() for place in range(3)])


def answers(model: Any, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yield the original's pixels, logits and first tokens."""
    words = SimpleNamespace(bos_token_id=128000, encode=lambda text, **_: tokenizer().encode(text).ids)
    settings = {"max_new_tokens": 3, "pad_token_id": 128002, "top_k": 1, "do_sample": False, "top_p": 0.1}
    for place, (frames, prompt) in enumerate(zip(videos(), PROMPTS, strict=True)):
        for number, question in enumerate(QUESTIONS):
            made = model.build_conversation_input_ids(
                words, query=question.replace("[[prompt]]", prompt), images=[frames.permute(3, 0, 1, 2)],
                history=[], template_version="chat",
            )  # fmt: skip
            if number == 0:
                yield f"{place} pixels", made["images"][0].contiguous()
            given = {key: made[key][None] for key in ("input_ids", "token_type_ids", "attention_mask")}
            given["images"] = [[made["images"][0].to(dtype)]]
            with torch.no_grad():
                yield f"{place} {number} logits", model(**given).logits[0, -1].clone()
                tokens = model.generate(**given, **settings, temperature=0.1)
            yield f"{place} {number} token", tokens[0, given["input_ids"].shape[1]].clone()


def ours(folder: Path) -> None:
    """Print how far ours are from the original's, and what the full-size model weighs."""
    from swd_eval.scores.cogvlm import load_cogvlm
    from swd_eval.scores.vision_reward import ask, frames_to_pixels, load_vision_reward

    pixels = [frames_to_pixels(frames) for frames in videos()]
    for name, dtype in DTYPES.items():
        saved, checkpoint = load_file(folder / f"{name}.safetensors"), folder / name
        network = load_cogvlm(
            load_file(checkpoint / "model.safetensors"), json.loads((checkpoint / "config.json").read_text()), dtype
        )
        far = max((pixels[place] - saved[f"{place} pixels"]).abs().max() for place in range(3))
        apart, same = [], []
        for place, prompt in enumerate(PROMPTS):
            times = [tokenizer().encode(str(second)).ids for second in range(len(pixels[place]))]
            with torch.no_grad():
                cache, start = network.watch(pixels[place].to(dtype), times)
                for number, question in enumerate(QUESTIONS):
                    logits = network.ask(cache, start, tokenizer().encode(ask(question, prompt)).ids)
                    apart.append((logits - saved[f"{place} {number} logits"]).abs().max())
                    same.append(int(logits.argmax()) == int(saved[f"{place} {number} token"]))
        print(name, f"largest differences: pixels {far:.1e}, logits {max(apart):.1e};", end=" ")
        print(f"the first token is the generated one in {sum(same)} of {len(same)} answers")
        (checkpoint / "VisionReward_video_qa_select.txt").write_text("".join(QUESTIONS))
        (checkpoint / "weight.json").write_text(json.dumps([number / 10 for number in range(len(QUESTIONS))]))
        print("  rows", load_vision_reward(checkpoint, "cpu", dtype)[1](pixels, PROMPTS).tolist())
    full_size(load_cogvlm)


def full_size(load: Any) -> None:
    """Load the released names and shapes, and compare the files that they make with the released ones."""
    shapes = dict(released_shapes(FULL))
    with torch.device("meta"):
        model = load({name: torch.empty(shape) for name, shape in shapes.items()}, FULL, torch.bfloat16)
    parts = {"vision": model.vision, "language": model.language, "head": model.lm_head}
    counts = {name: sum(each.numel() for each in part.parameters()) for name, part in parts.items()}
    print(f"{len(shapes)} released tensors fit; parameters", counts, "together", sum(counts.values()))
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in shapes.items():
        if 2 * sum(map(prod, [*shards[-1].values(), shape])) > 5e9:
            shards.append({})
        shards[-1][name] = shape
    sizes = [file_size(shard) for shard in shards]
    print("files of", sizes, "bytes; equal to the released", sizes == FILES)


def released_shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes in the order of the released files."""
    width, inner, vision = config["hidden_size"], config["intermediate_size"], config["vision_config"]
    head = width // config["num_attention_heads"]
    yield "model.embed_tokens.weight", (config["vocab_size"], width)
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        yield f"{layer}.self_attn.rotary_emb.inv_freq", (head // 2,)
        queries = width + 2 * head * config["num_multi_query_heads"]
        yield f"{layer}.self_attn.language_expert_query_key_value.weight", (queries, width)
        yield f"{layer}.self_attn.language_expert_dense.weight", (width, width)
        for part, shape in {"gate": (inner, width), "up": (inner, width), "down": (width, inner)}.items():
            yield f"{layer}.mlp.language_mlp.{part}_proj.weight", shape
        yield from {f"{layer}.{part}_layernorm.weight": (width,) for part in ("input", "post_attention")}.items()
    yield "model.norm.weight", (width,)
    yield from ((f"model.vision.{name}", shape) for name, shape in released_vision(vision, width, inner))
    yield "lm_head.weight", (config["vocab_size"], width)


def released_vision(config: dict[str, Any], hidden: int, inner: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield those of the vision tower."""
    width, middle, patch = config["hidden_size"], config["intermediate_size"], config["patch_size"]
    yield from {"boi": (1, 1, hidden), "eoi": (1, 1, hidden), "patch_embedding.cls_embedding": (1, width)}.items()
    yield from biased("patch_embedding.proj", (width, 3, patch, patch))
    yield "patch_embedding.position_embedding.weight", (config["num_positions"], width)
    parts = {
        "input_layernorm": (width,), "attention.query_key_value": (3 * width, width), "attention.dense": (width, width),
        "mlp.fc1": (middle, width), "mlp.fc2": (width, middle), "post_attention_layernorm": (width,),
    }  # fmt: skip
    for number in range(config["num_hidden_layers"]):
        for part, shape in parts.items():
            yield from biased(f"transformer.layers.{number}.{part}", shape)
    yield "linear_proj.linear_proj.weight", (hidden, width)
    yield from biased("linear_proj.norm1", (hidden,))
    for part, shape in {"dense_h_to_4h": (inner, hidden), "gate_proj": (inner, hidden)}.items():
        yield f"linear_proj.{part}.weight", shape
    yield "linear_proj.dense_4h_to_h.weight", (hidden, inner)
    yield from biased("conv", (width, width, 2, 2))


def biased(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield a weight and its bias."""
    yield from ((f"{name}.weight", shape), (f"{name}.bias", shape[:1]))


def file_size(shapes: dict[str, tuple[int, ...]]) -> int:
    """Return the bytes of a safetensors file of bfloat16."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in sorted(shapes.items()):
        start, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    return 8 + -(-len(json.dumps(header, separators=(",", ":"))) // 8) * 8 + end


def main() -> None:
    """Run one half of the proof."""
    half, folder = sys.argv[1], Path(sys.argv[2])
    print(half, *(f"{package} {version(package)}" for package in ("torch", "transformers")))
    if half == "original":
        original(folder, Path(sys.argv[3]))
    else:
        ours(folder)


if __name__ == "__main__":
    main()
