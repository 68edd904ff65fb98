import json

import pytest
import torch
from PIL import Image

from swd_eval.geneval.detectors import TEMPLATES, load_colours
from swd_eval.geneval.score import COLOURS
from swd_eval.scores.clip_scores import load_clip, pickscore

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random CLIP of the smallest size, with a tokenizer of single letters."""
    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": len(words), "bos_token_id": 52, "eos_token_id": 53, "pad_token_id": 53}
    config = transformers.CLIPConfig(
        text_config=tower | text, vision_config=tower | {"image_size": 224, "patch_size": 32}, projection_dim=16
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config)
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.2)
    model.save_pretrained(folder)
    transformers.CLIPImageProcessorPil().save_pretrained(folder)
    return folder


def test_a_score_is_100_times_the_cosine_of_the_projections(folder):
    prepare, run = load_clip(folder, folder, "cpu")
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    images = [Image.effect_noise((300, 260), 60).convert("RGB"), Image.new("RGB", (224, 300), (200, 30, 60))]
    prompts, pixels = ["a cat", "dogs and cats"], [prepare(image) for image in images]
    scores = run(pixels, prompts)
    assert scores.shape == (2, 1)
    for pixel, prompt, score in zip(pixels, prompts, scores, strict=True):
        letters = [ord(letter) - 97 for word in prompt.split() for letter in word]
        ends = {sum(map(len, prompt.split()[: index + 1])) - 1 for index in range(len(prompt.split()))}
        tokens = [52, *(code + 26 * (place in ends) for place, code in enumerate(letters)), 53]
        with torch.no_grad():
            hidden = model.text_model(input_ids=torch.tensor([tokens])).last_hidden_state[0, -1]
            text = model.text_projection(hidden)
            image = model.visual_projection(model.vision_model(pixel[None]).pooler_output)[0]
        expected = 100 * torch.dot(text / text.norm(), image / image.norm())
        assert float(score) == pytest.approx(float(expected), abs=1e-3)
    assert abs(float(scores[0] - scores[1])) > 0.1


def test_long_prompts_are_cut_at_77_tokens(folder):
    prepare, run = load_clip(folder, folder, "cpu")
    image = prepare(Image.new("RGB", (64, 64), (9, 99, 199)))
    scores = run([image, image], ["x " * 90, "x " * 75])
    assert float(scores[0]) == pytest.approx(float(scores[1]), abs=1e-4)


def test_pixels_do_not_depend_on_whether_torchvision_is_there(folder):
    transforms = pytest.importorskip("torchvision.transforms")
    prepare, _ = load_clip(folder, folder, "cpu")
    image = Image.effect_noise((517, 300), 80).convert("RGB")
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    resize = transforms.Resize(224, transforms.InterpolationMode.BICUBIC)
    steps = [resize, transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(mean, std)]
    torch.testing.assert_close(prepare(image), transforms.Compose(steps)(image), rtol=0, atol=1e-5)


def test_weights_that_are_missing_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"yuvalkirstain/PickScore_v1 \(about 4 GB\)"):
        pickscore(tmp_path, "cpu")


def test_a_crops_colour_is_the_one_whose_sentences_are_nearest(folder):
    crops = [Image.effect_noise((60, 50), 90).convert("RGB"), Image.new("RGB", (80, 30), (20, 200, 90))]
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokens = transformers.CLIPTokenizer.from_pretrained(folder)
    pixels = transformers.CLIPImageProcessorPil.from_pretrained(folder)(crops, return_tensors="pt").pixel_values
    expected = []
    with torch.no_grad():
        for pixel in pixels:
            image = model.visual_projection(model.vision_model(pixel[None]).pooler_output)[0]
            scores = []
            for colour in COLOURS:
                sentences = [tokens(template.format(colour, "cat"), return_tensors="pt") for template in TEMPLATES]
                texts = [model.text_projection(model.text_model(**text).pooler_output)[0] for text in sentences]
                mean = sum(text / text.norm() for text in texts)
                scores.append(float(image @ mean / mean.norm()))
            expected.append(COLOURS[scores.index(max(scores))])
    assert load_colours(folder, "cpu")(crops, "cat") == expected
