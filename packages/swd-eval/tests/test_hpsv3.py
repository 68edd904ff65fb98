from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from swd_eval.scores.hpsv3 import IMAGE, HPSv3, load_hpsv3, question

transformers = pytest.importorskip("transformers")

REWARD, PAD, IMAGE_TOKEN = 290, 291, 292
VISION = {"depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": 64}
FROZEN = [-0.00027984, 0.18632726]  # proofs/hpsv3_reward.txt


def config(vocabulary=300, image=IMAGE_TOKEN):
    text = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": vocabulary, "bos_token_id": None, "eos_token_id": None,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    return transformers.Qwen2VLConfig(text_config=text, vision_config=VISION, image_token_id=image)


def weights(vocabulary=300):
    """Return weights under the released names, filled as in proofs/hpsv3_reward.py."""
    with torch.device("meta"):
        trunk = transformers.Qwen2VLModel(config(vocabulary)).state_dict()
    shapes = {name.replace("language_model.", "model."): value.shape for name, value in trunk.items()}
    for place, (out, into) in {0: (1024, 64), 3: (16, 1024), 5: (2, 16)}.items():
        shapes |= {f"rm_head.{place}.weight": (out, into), f"rm_head.{place}.bias": (out,)}
    state = {"lm_head.weight": torch.zeros(vocabulary, 64)}
    for name, shape in shapes.items():
        noise = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(crc32(name.encode())))
        is_norm = any(part in name for part in ("norm", "ln_q")) and name.endswith("weight")
        state[name] = 1 + 0.1 * noise if is_norm else noise / (shape[-1] if len(shape) > 1 else 100) ** 0.5
    return state


def photos():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ((300, 517), (1024, 1024))]


def test_rewards_are_those_that_the_original_code_gave():
    prepared = transformers.Qwen2VLImageProcessorPil(min_pixels=200704, max_pixels=200704)(
        photos(), return_tensors="pt"
    )
    generator = torch.Generator().manual_seed(2)
    rows = []
    for each, length in zip(prepared.image_grid_thw, (40, 9), strict=True):
        words = torch.randint(0, 280, (length,), generator=generator)
        image = torch.full((int(each.prod()) // 4,), IMAGE_TOKEN)
        rows.append(torch.cat([words[:5], image, words[5:], torch.tensor([REWARD, 7, 8])]))
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    model = HPSv3(weights(), config(), torch.float32).eval()
    with torch.no_grad():
        mask = (tokens != PAD).long()
        rewards = model(tokens, mask, prepared.pixel_values, prepared.image_grid_thw, REWARD)
    torch.testing.assert_close(rewards, torch.tensor(FROZEN)[:, None], rtol=0, atol=1e-5)


def test_images_and_prompts_of_a_batch_are_scored_as_alone(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", IMAGE]
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=special[0], additional_special_tokens=special[1:]
    )
    fast.save_pretrained(tmp_path)
    config(len(letters) + 7, fast.convert_tokens_to_ids(IMAGE)).save_pretrained(tmp_path)
    save_file(weights(len(letters) + 7), tmp_path / "HPSv3.safetensors")
    prepare, run = load_hpsv3(tmp_path / "HPSv3.safetensors", tmp_path, "cpu", torch.float32)
    images, prompts = [prepare(photo) for photo in photos()], ["a cat", "a dog with {braces}"]
    together = run(images, prompts)
    alone = torch.cat([run([image], [prompt]) for image, prompt in zip(images, prompts, strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)
    assert abs(float(together[0] - together[1])) > 1e-3


def test_the_question_holds_the_prompt_and_the_images_tokens():
    text = question("a {cat}", 256)
    assert text.count(IMAGE) == 256
    assert "Textual prompt - a {cat}\n" in text
    assert text.endswith("<|Reward|>\n\nEND\n<|im_end|>\n<|im_start|>assistant\n")


def test_other_weights_are_refused():
    with pytest.raises(ValueError, match=r"give HPSv3\.safetensors"):
        HPSv3({"lm_head.weight": torch.zeros(2, 2)}, config(), torch.float32)
