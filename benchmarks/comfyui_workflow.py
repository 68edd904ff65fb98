"""ComfyUI's example workflow: writes it as JSON, as ComfyUI saves it, and draws it.

`uv run --group benchmarks python -m benchmarks.comfyui_workflow`
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

OUT = Path("apps/comfyui/example_workflows")
NAME = "swd-sd35-medium"
WIDTH, ROW, HEAD, GAP = 290, 22, 30, 20
COLORS = {
    "MODEL": "#b39ddb", "CLIP": "#ffd500", "VAE": "#ff6e6e", "CONDITIONING": "#ffa931", "LATENT": "#ff9cf9",
    "SWD_SCHEDULE": "#7fd6a8", "SIGMAS": "#cdffcd", "SAMPLER": "#ececa0", "GUIDER": "#66ffff", "NOISE": "#b0b0b0",
    "IMAGE": "#64b5f6", "INT": "#9fb4c7",
}  # fmt: skip


@dataclass(frozen=True)
class Node:
    """A node: its place, inputs as (name, type), outputs likewise, and the values of its widgets by name."""

    kind: str
    at: tuple[int, int]
    inputs: tuple[tuple[str, str], ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()
    widgets: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height."""
        return WIDTH, HEAD + ROW * (max(len(self.inputs), len(self.outputs)) + len(self.widgets)) + 10

    def slot(self, index: int, side: int) -> tuple[int, int]:
        """Return where an input (side 0) or an output (side 1) is."""
        return self.at[0] + side * WIDTH, self.at[1] + HEAD + ROW * index + ROW // 2


MODEL, LATENT = ("model", "MODEL"), ("LATENT", "LATENT")
NODES = (
    Node(
        "CheckpointLoaderSimple", (0, 40), (), (("MODEL", "MODEL"), ("CLIP", "CLIP"), ("VAE", "VAE")),
        {"ckpt_name": "sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors"},
    ),
    Node(
        "LoraLoaderModelOnly", (340, 0), (MODEL,), (("MODEL", "MODEL"),),
        {"lora_name": "comfyui_lora.safetensors", "strength_model": 1.0},
    ),
    Node(
        "CLIPTextEncode", (340, 150), (("clip", "CLIP"),), (("CONDITIONING", "CONDITIONING"),),
        {"text": "a fox and a hare at a lake in the mountains"},
    ),
    Node(
        "SwDSchedule", (680, 0), (MODEL,),
        (("schedule", "SWD_SCHEDULE"), ("sigmas", "SIGMAS"), ("width", "INT"), ("height", "INT"), ("length", "INT")),
        {"lora": "comfyui_lora.safetensors", "preset": "of the LoRA", "text": "", "width": 0, "height": 0},
    ),
    Node("BasicGuider", (680, 290), (MODEL, ("conditioning", "CONDITIONING")), (("GUIDER", "GUIDER"),)),
    Node("RandomNoise", (680, 400), (), (("NOISE", "NOISE"),), {"noise_seed": 0, "control_after_generate": "fixed"}),
    Node(
        "SwDSampler", (1020, 0), (("schedule", "SWD_SCHEDULE"),), (("SAMPLER", "SAMPLER"),),
        {"upscaler": "of the schedule", "noise_seed": 0, "control_after_generate": "randomize"},
    ),
    Node(
        "EmptySD3LatentImage", (1020, 180), (("width", "INT"), ("height", "INT")), (LATENT,),
        {"width": 1024, "height": 1024, "batch_size": 1},
    ),
    Node(
        "SamplerCustomAdvanced", (1360, 120),
        (
            ("noise", "NOISE"), ("guider", "GUIDER"), ("sampler", "SAMPLER"), ("sigmas", "SIGMAS"),
            ("latent_image", "LATENT"),
        ),
        (("output", "LATENT"), ("denoised_output", "LATENT")),
    ),
    Node("VAEDecode", (1700, 120), (("samples", "LATENT"), ("vae", "VAE")), (("IMAGE", "IMAGE"),)),
    Node("SaveImage", (2040, 120), (("images", "IMAGE"),), (), {"filename_prefix": "swd"}),
)  # fmt: skip
# (from, its output) to (to, its input), by place in NODES.
LINKS = (
    (0, 0, 1, 0), (0, 1, 2, 0), (1, 0, 3, 0), (1, 0, 4, 0), (2, 0, 4, 1), (3, 0, 6, 0), (3, 2, 7, 0), (3, 3, 7, 1),
    (5, 0, 8, 0), (4, 0, 8, 1), (6, 0, 8, 2), (3, 1, 8, 3), (7, 0, 8, 4), (8, 0, 9, 0), (0, 2, 9, 1), (9, 0, 10, 0),
)  # fmt: skip


def workflow() -> dict[str, Any]:
    """Return the workflow as ComfyUI's page saves and opens it."""
    links = [[i, a + 1, out, b + 1, into, NODES[a].outputs[out][1]] for i, (a, out, b, into) in enumerate(LINKS, 1)]
    nodes = []
    for number, node in enumerate(NODES, 1):
        inputs = [
            {"name": name, "type": kind, "link": next(link[0] for link in links if link[3:5] == [number, i])}
            | ({"widget": {"name": name}} if name in node.widgets else {})
            for i, (name, kind) in enumerate(node.inputs)
        ]
        outputs = [
            {"name": name, "type": kind, "links": [link[0] for link in links if link[1:3] == [number, i]]}
            for i, (name, kind) in enumerate(node.outputs)
        ]
        nodes.append(
            {
                "id": number, "type": node.kind, "pos": list(node.at), "size": list(node.size), "flags": {},
                "order": number - 1, "mode": 0, "inputs": inputs, "outputs": outputs,
                "properties": {"Node name for S&R": node.kind}, "widgets_values": list(node.widgets.values()),
            }
        )  # fmt: skip
    rest = {"groups": [], "config": {}, "extra": {}, "version": 0.4}
    return {"last_node_id": len(nodes), "last_link_id": len(links), "nodes": nodes, "links": links} | rest


def picture() -> Image.Image:
    """Draw the workflow."""
    right, bottom = (max(node.at[i] + node.size[i] for node in NODES) + 2 * GAP for i in range(2))
    canvas = Image.new("RGB", (right, bottom), "#202020")
    draw, font, small = ImageDraw.Draw(canvas), ImageFont.load_default(16), ImageFont.load_default(13)
    for node in NODES:
        (x, y), (w, h) = (node.at[0] + GAP, node.at[1] + GAP), node.size
        fill, outline = ("#2f4f43", "#7fd6a8") if node.kind.startswith("SwD") else ("#353535", "#555")
        draw.rounded_rectangle((x, y, x + w, y + h), 8, fill=fill, outline=outline)
        draw.text((x + 12, y + 6), node.kind, "#eee", font)
        top = y + HEAD + ROW * max(len(node.inputs), len(node.outputs))
        for row, (name, value) in enumerate(node.widgets.items()):
            text = f"{name}: {value}"
            draw.text((x + 16, top + ROW * row + 3), text if len(text) < 38 else text[:36] + "...", "#bbb", small)
        for side, slots in enumerate((node.inputs, node.outputs)):
            for i, (name, kind) in enumerate(slots):
                cx, cy = (each + GAP for each in node.slot(i, side))
                draw.ellipse((cx - 5, cy - 5, cx + 5, cy + 5), fill=COLORS[kind])
                anchor, shift = ("lm", 10) if side == 0 else ("rm", -10)
                draw.text((cx + shift, cy), name, "#ddd", small, anchor=anchor)
    for a, out, b, into in LINKS:
        start, end = NODES[a].slot(out, 1), NODES[b].slot(into, 0)
        reach = max(40, abs(end[0] - start[0]) // 2)
        corners = (start, (start[0] + reach, start[1]), (end[0] - reach, end[1]), end)
        points = [_bezier(corners, i / 32) for i in range(33)]
        draw.line(points, fill=COLORS[NODES[a].outputs[out][1]], width=2, joint="curve")
    return canvas


def _bezier(corners: Sequence[tuple[int, int]], t: float) -> tuple[float, float]:
    """Return a point of a cubic curve."""
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    x, y = (sum(w * c[axis] for w, c in zip(weights, corners, strict=True)) + GAP for axis in (0, 1))
    return x, y


def main() -> None:
    """Write both."""
    OUT.mkdir(exist_ok=True)
    (OUT / f"{NAME}.json").write_text(json.dumps(workflow(), indent=1) + "\n")
    picture().save(OUT / f"{NAME}.png")
    print(OUT / f"{NAME}.json")


if __name__ == "__main__":
    main()
