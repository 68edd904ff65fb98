"""GenEval's two models over transformers: a Mask2Former that finds objects, and CLIP that names colours.

The Mask2Former is not GenEval's own, which needs mmdet 2: its images are scaled to 384, its checkpoint is another.
Compare these scores with each other, not with published ones.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from swd_eval.geneval.score import COLOURS, THRESHOLD, Detection, Detector, NameColours

# GenEval's names for COCO's classes, where they differ.
NAMES = {"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"}
TEMPLATES = ("a photo of a {} {}", "a photo of a {}-colored {}", "a photo of a {} object")


def load_detector(path: Path, device: str) -> Detector:
    """Load a Mask2Former for COCO's instances."""
    from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessorPil

    network = Mask2FormerForUniversalSegmentation.from_pretrained(path, local_files_only=True).to(device).eval()
    pixels = Mask2FormerImageProcessorPil.from_pretrained(path, local_files_only=True)

    @torch.inference_mode()
    def detect(image: Image.Image) -> list[Detection]:
        outputs = network(**pixels(image, return_tensors="pt").to(device))
        [found] = pixels.post_process_instance_segmentation(
            outputs, threshold=THRESHOLD, target_sizes=[image.size[::-1]], return_binary_maps=True
        )
        labels = network.config.id2label
        return [
            _detection(labels[segment["label_id"]], segment["score"], mask.bool().cpu())
            for segment, mask in zip(found["segments_info"], found["segmentation"], strict=False)
        ]

    return detect


def load_colours(path: Path, device: str) -> NameColours:
    """Load a CLIP that names the colour of crops: the nearest of ten, each the mean of three sentences."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    network = CLIPModel.from_pretrained(path, use_safetensors=True, local_files_only=True).to(device).eval()
    pixels = CLIPImageProcessorPil.from_pretrained(path, local_files_only=True)
    tokens = CLIPTokenizer.from_pretrained(path, local_files_only=True)
    classifiers: dict[str, Tensor] = {}

    def embed_colours(name: str) -> Tensor:
        texts = [template.format(colour, name) for colour in COLOURS for template in TEMPLATES]
        options: dict[str, Any] = {"padding": True, "return_tensors": "pt"}
        hidden = network.text_model(**tokens(texts, **options).to(device)).pooler_output
        embeds = normalize(network.text_projection(hidden), dim=1).reshape(len(COLOURS), len(TEMPLATES), -1)
        return normalize(embeds.mean(1), dim=1)

    @torch.inference_mode()
    def name_colours(crops: Sequence[Image.Image], name: str) -> list[str]:
        if name not in classifiers:
            classifiers[name] = embed_colours(name)
        values = pixels(list(crops), return_tensors="pt").pixel_values.to(device)
        images = network.visual_projection(network.vision_model(values).pooler_output)
        return [COLOURS[index] for index in (images @ classifiers[name].T).argmax(1).tolist()]

    return name_colours


def _detection(label: str, score: float, mask: Tensor) -> Detection:
    rows, columns = (mask.any(axis).nonzero()[:, 0] for axis in (1, 0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1)
    return Detection(NAMES.get(label, label), score, box, mask.numpy())
