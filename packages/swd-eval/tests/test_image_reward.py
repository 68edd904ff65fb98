from zlib import crc32

import pytest
import torch
from PIL import Image

from swd_eval.scores.image_reward import ImageReward, load_image_reward, prepare_image

pytest.importorskip("transformers")

WIDTH, DEPTH, TEXT, LAYERS, VOCABULARY = 128, 2, 64, 3, 50


def linear(name, out, into):
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def attention(name, width, context):
    shapes = norm(f"{name}.output.LayerNorm", width) | linear(f"{name}.output.dense", width, width)
    for part, into in (("query", width), ("key", context), ("value", context)):
        shapes |= linear(f"{name}.self.{part}", width, into)
    return shapes


def released_shapes():
    """Return names and shapes as the released file has them, for a small model."""
    image, text = "blip.visual_encoder", "blip.text_encoder"
    shapes = {f"{image}.cls_token": (1, 1, WIDTH), f"{image}.pos_embed": (1, 197, WIDTH)} | norm(f"{image}.norm", WIDTH)
    shapes |= {f"{image}.patch_embed.proj.weight": (WIDTH, 3, 16, 16), f"{image}.patch_embed.proj.bias": (WIDTH,)}
    for block in (f"{image}.blocks.{index}" for index in range(DEPTH)):
        shapes |= norm(f"{block}.norm1", WIDTH) | norm(f"{block}.norm2", WIDTH)
        shapes |= linear(f"{block}.attn.qkv", 3 * WIDTH, WIDTH) | linear(f"{block}.attn.proj", WIDTH, WIDTH)
        shapes |= linear(f"{block}.mlp.fc1", 4 * WIDTH, WIDTH) | linear(f"{block}.mlp.fc2", WIDTH, 4 * WIDTH)
    shapes |= {f"{text}.embeddings.word_embeddings.weight": (VOCABULARY, TEXT)} | norm(
        f"{text}.embeddings.LayerNorm", TEXT
    )
    shapes |= {f"{text}.embeddings.position_embeddings.weight": (512, TEXT)}
    for layer in (f"{text}.encoder.layer.{index}" for index in range(LAYERS)):
        shapes |= attention(f"{layer}.attention", TEXT, TEXT) | attention(f"{layer}.crossattention", TEXT, WIDTH)
        shapes |= linear(f"{layer}.intermediate.dense", 4 * TEXT, TEXT) | norm(f"{layer}.output.LayerNorm", TEXT)
        shapes |= linear(f"{layer}.output.dense", TEXT, 4 * TEXT)
    for place, out, into in ((0, 1024, TEXT), (2, 128, 1024), (4, 64, 128), (6, 16, 64), (7, 1, 16)):
        shapes |= linear(f"mlp.layers.{place}", out, into)
    return shapes


def weights():
    """Fill as proofs/image_reward.py does."""
    state = {}
    for name, shape in released_shapes().items():
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(crc32(name.encode())))
        is_norm = "norm" in name.lower() and name.endswith("weight")
        state[name] = 1 + 0.1 * noise if is_norm else noise / (shape[-1] if len(shape) > 1 else 100) ** 0.5
    return state | {
        "blip.vision_proj.weight": torch.zeros(2, 2),
        "blip.text_encoder.embeddings.position_ids": torch.arange(9),
    }


def test_rewards_are_those_that_the_original_code_gave():
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, VOCABULARY, (2, 35), generator=generator)
    mask = (torch.arange(35) < torch.tensor([[35], [7]])).long()
    pixels = torch.randn(2, 3, 224, 224, generator=generator)
    with torch.no_grad():
        rewards = ImageReward(weights()).eval()(pixels, tokens, mask)
    torch.testing.assert_close(rewards, torch.tensor(FROZEN)[:, None], rtol=0, atol=1e-4)


FROZEN = [-1.7671018, -0.5542306]  # proofs/image_reward.txt


def test_a_prompt_is_padded_to_35_tokens_and_its_padding_does_not_count(tmp_path):
    torch.save(weights(), tmp_path / "ImageReward.pt")
    tokenizer = tmp_path / "bert"
    tokenizer.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog"]
    (tokenizer / "vocab.txt").write_text("\n".join(words) + "\n")
    prepare, run = load_image_reward(tmp_path / "ImageReward.pt", tokenizer, "cpu")
    image = prepare(Image.effect_noise((300, 250), 80).convert("RGB"))
    together = run([image, image], ["A cat", "a dog " * 40])
    assert together.shape == (2, 1)
    assert together[0] != together[1]
    tokens = torch.tensor([[2, 5, 6, 3]])
    with torch.no_grad():
        alone = ImageReward(weights()).eval()(image[None], tokens, torch.ones_like(tokens))
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-4)


def test_pixels_are_those_of_torchvisions_transforms():
    transforms = pytest.importorskip("torchvision.transforms")
    image = Image.effect_noise((517, 300), 80).convert("RGB")
    bicubic, mean, std = transforms.InterpolationMode.BICUBIC, (0.48145466, 0.4578275, 0.40821073), (
        0.26862954, 0.26130258, 0.27577711
    )  # fmt: skip
    steps = [transforms.Resize(224, bicubic), transforms.CenterCrop(224), transforms.ToTensor()]
    expected = transforms.Compose([*steps, transforms.Normalize(mean, std)])(image)
    torch.testing.assert_close(prepare_image(image), expected, rtol=0, atol=1e-5)


def test_other_weights_are_refused():
    with pytest.raises(ValueError, match=r"give ImageReward\.pt"):
        ImageReward({"fc.weight": torch.zeros(2, 2)})
