"""ComfyUI's nodes against a stand-in of ComfyUI: what they sample is what `sample_scalewise` samples."""

import asyncio
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from benchmarks import comfyui_workflow
from swd_models import load_denoiser, save_lora, share_base
from swd_models.tiny import TINY, tiny_cond
from swd_schedules import FlowMatching, ScaleSchedule, VariancePreserving, presets, sample_scalewise, upscale
from tests.comfyui.standin import CONST, EPS, Guider, Patcher, install

FOLDER = Path(__file__).parents[2] / "apps" / "comfyui"
IMAGE = ScaleSchedule.square((1000.0, 895.9, 737.1, 602.2), (8, 10, 12, 16))
VIDEO = ScaleSchedule((1000.0, 896.0, 602.0), ((2, 4, 6), (3, 4, 8), (5, 8, 12)), "bilinear")
VP = ScaleSchedule.square((1000.0, 800.0, 600.0, 400.0), (4, 8, 8, 12))


@pytest.fixture
def loras(tmp_path):
    folder = tmp_path / "loras"
    folder.mkdir()
    return folder


@pytest.fixture
def package(monkeypatch, loras):
    """Load the folder as ComfyUI does: by its path, under a name of its own."""
    install(monkeypatch, loras)
    name = "swd_comfyui_under_test"
    spec = importlib.util.spec_from_file_location(
        name, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    module = importlib.util.module_from_spec(spec)
    for each in [key for key in sys.modules if key.startswith(name)]:
        monkeypatch.delitem(sys.modules, each)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def nodes(package):
    extension = asyncio.run(package.comfy_entrypoint())
    return {node.define_schema().node_id: node for node in asyncio.run(extension.get_node_list())}


def scheduled(nodes, model, *, lora="none", preset="of the LoRA", text="", width=0, height=0):
    return nodes["SwDSchedule"].execute(model, lora, preset, text, width, height).args


def sampled(nodes, schedule, sigmas, denoise, noising, latent, *, seed=5, upscaler="of the schedule", seen=None):
    """Run the sampler as SamplerCustomAdvanced does, whose own noise does not matter."""
    (sampler,) = nodes["SwDSampler"].execute(schedule, upscaler, seed).args
    told = None if seen is None else lambda i, denoised, x, total: seen.append((i, tuple(denoised.shape), total))
    noise, extra = torch.randn(latent.shape), {"model_options": {}, "seed": 99}
    return sampler.sample(Guider(denoise, noising), sigmas, extra, told, noise, latent)


def generators(count, seed=5):
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


def test_the_schemas_have_what_a_workflow_connects(nodes, loras):
    (loras / "style.safetensors").write_bytes(b"")
    schedule, sampler = (nodes[name].define_schema() for name in ("SwDSchedule", "SwDSampler"))
    assert [(slot.kind, slot.id) for slot in schedule.inputs] == [
        ("MODEL", "model"), ("COMBO", "lora"), ("COMBO", "preset"),
        ("STRING", "text"), ("INT", "width"), ("INT", "height"),
    ]  # fmt: skip
    assert schedule.inputs[1].options["options"] == ["none", "style.safetensors"]
    assert [slot.kind for slot in schedule.outputs] == ["SWD_SCHEDULE", "SIGMAS", "INT", "INT", "INT"]
    assert [slot.kind for slot in sampler.inputs] == ["SWD_SCHEDULE", "COMBO", "INT"]
    assert [slot.kind for slot in sampler.outputs] == ["SAMPLER"]


def apart(x, family):
    """Return what ComfyUI's model gets as the family has it here: FLUX.2's cells are packed, Qwen-Image has a frame."""
    return {"flux2": lambda: pixel_shuffle(x, 2), "qwen": lambda: x.squeeze(2)}.get(family, lambda: x)()


def together(x, family):
    return {"flux2": lambda: pixel_unshuffle(x, 2), "qwen": lambda: x.unsqueeze(2)}.get(family, lambda: x)()


@pytest.mark.parametrize("split", [None, 2])
@pytest.mark.parametrize("family", ["sd3", "flux", "flux2", "qwen", "zimage", "wan"])
@torch.no_grad()
def test_a_flow_model_samples_as_here(nodes, family, split):
    denoiser = load_denoiser(f"random-{family}")
    schedule = VIDEO if family == "wan" else ScaleSchedule.square(IMAGE.timesteps, (4, 6, 8, 12))
    cond = tiny_cond(family, 2)
    expected = sample_scalewise(
        lambda x, s: denoiser.denoise(x, s, cond), schedule, (2, denoiser.num_channels), generator=generators(2)
    )
    patcher = Patcher(CONST(), 128) if family == "flux2" else Patcher(CONST())
    found, sigmas, width, height, length = scheduled(nodes, patcher, text=schedule.to_json())
    assert (width, height) == tuple(8 * side for side in schedule.sizes[-1][:-3:-1])
    assert length == (17 if family == "wan" else 1)
    latent, seen = together(torch.zeros(2, denoiser.num_channels, *schedule.sizes[-1]), family), []

    def denoise(x, s):
        seen.append(apart(x, family).shape[2:])
        return together(denoiser.denoise(apart(x, family), s, cond), family)

    if split is not None:  # as two models share the steps
        latent = sampled(nodes, found, sigmas[: split + 1], denoise, CONST(), latent)
        assert apart(latent, family).shape[2:] == schedule.sizes[split - 1]
    shown = []
    ours = sampled(nodes, found, sigmas[split or 0 :], denoise, CONST(), latent, seen=shown)
    near = 1e-6 if split is None else 1e-5  # between two models x0 is scaled, and back
    torch.testing.assert_close(apart(ours, family), expected, rtol=near, atol=near)
    assert seen == list(schedule.sizes)
    assert {total for _, _, total in shown} == {len(schedule.sizes) - (split or 0)}
    assert shown[-1][1] == tuple(ours.shape)


def test_odd_sizes_of_a_model_that_packs_are_one_message(nodes):
    with pytest.raises(ValueError, match=r"expected even sizes for this model, got .*: it packs 2x2 cells"):
        scheduled(nodes, Patcher(CONST(), 128), text="1000:7,602:16")


@torch.no_grad()
def test_a_model_with_a_table_samples_as_here(nodes):
    denoiser, cond = load_denoiser("random-sdxl"), tiny_cond("sdxl", 2)

    def denoise(x, s):
        return denoiser.denoise(x, s, cond)

    expected = sample_scalewise(denoise, VP, (2, 4), process=VariancePreserving(), generator=generators(2))
    found, sigmas, *_ = scheduled(nodes, Patcher(EPS(), 4), text=VP.to_json())
    ours = sampled(nodes, found, sigmas, denoise, EPS(), torch.zeros(2, 4, 12, 12))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)

    def shrink(x, s):
        return x * (1 - 0.5 * s.clamp(max=0.999).view(-1, 1, 1, 1))  # there are timesteps up to 999

    expected = sample_scalewise(shrink, VP, (2, 4), process=VariancePreserving(), generator=generators(2))
    ours = sampled(nodes, found, sigmas, shrink, EPS(), torch.zeros(2, 4, 12, 12))
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("upscaler", ["bicubic", "bilinear", "nearest", "dct"])
def test_upscalers_and_both_ranks_are_those_of_here(package, upscaler):
    core = sys.modules[f"{package.__name__}.swd_nodes.core"]
    for size, larger in (((5, 7), (8, 12)), ((2, 4, 6), (5, 8, 9))):
        x = torch.randn(2, 3, *size)
        torch.testing.assert_close(
            core.upscale(x, larger, upscaler), upscale(x, larger, upscaler), rtol=1e-6, atol=1e-6
        )


@torch.no_grad()
def test_the_node_may_choose_the_upscaler_and_a_schedule_may_begin_below_1000(nodes):
    schedule = replace(IMAGE, timesteps=(990.0, 895.9, 737.1, 602.2))

    def denoise(x, s):
        return x * (1 - 0.5 * s.view(-1, 1, 1, 1))

    expected = sample_scalewise(denoise, replace(schedule, upscaler="dct"), (1, 4), generator=generators(1))
    found, sigmas, *_ = scheduled(nodes, Patcher(CONST()), text=schedule.to_json())
    ours = sampled(nodes, found, sigmas, denoise, CONST(), torch.zeros(1, 4, 16, 16), upscaler="dct")
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_two_models_share_the_steps_by_split_sigmas(nodes):
    """As Wan2.2-A14B's experts: the second begins with what the first has left."""

    def high(x, s):
        return 0.9 * x

    def low(x, s):
        return x * (1 - 0.5 * s.view(-1, 1, 1, 1, 1))

    wan = ScaleSchedule((1000.0, 896.0, 737.0, 602.0), ((1, 4, 4), (2, 4, 6), (2, 6, 6), (3, 6, 8)))
    expected = sample_scalewise(
        lambda x, s: high(x, s) if float(s[0]) >= 0.875 else low(x, s), wan, (2, 4), generator=generators(2)
    )
    found, sigmas, *_ = scheduled(nodes, Patcher(CONST()), text=wan.to_json())
    middle = sampled(nodes, found, sigmas[:3], high, CONST(), torch.zeros(2, 4, 3, 6, 8))
    assert middle.shape[2:] == (2, 4, 6)
    ours = sampled(nodes, found, sigmas[2:], low, CONST(), middle)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_a_lora_brings_its_schedule(nodes, loras):
    student = share_base(TINY["sd3"](), 2, fake=False).student
    save_lora(student, loras, schedule=replace(IMAGE, upscaler="dct"), form="comfyui")
    found, sigmas, *_ = scheduled(nodes, Patcher(CONST()), lora="comfyui_lora.safetensors")
    assert (found.timesteps, found.sizes, found.upscaler) == (IMAGE.timesteps, IMAGE.sizes, "dct")
    torch.testing.assert_close(sigmas, torch.tensor([*IMAGE.sigmas, 0.0]))


def test_presets_are_those_of_swd_schedules():
    kept = json.loads((FOLDER / "swd_nodes" / "presets.json").read_text())
    every = [name for name in presets.PRESETS if not name.startswith("tiny") and "constant" not in name]
    assert list(kept) == [name for name in every if not name.endswith("-full")]
    assert all(ScaleSchedule.from_json(text) == presets.PRESETS[name] for name, text in kept.items())


def test_sigmas_are_levels_of_the_model(nodes):
    _, flow, *_ = scheduled(nodes, Patcher(CONST()), preset="flux-4-paper")
    torch.testing.assert_close(flow, torch.tensor([*presets.FLUX_4_PAPER.sigmas, 0.0]))
    _, table, *_ = scheduled(nodes, Patcher(EPS(), 4), preset="sdxl-4")
    process = VariancePreserving()
    expected = process.noise_to_signal(torch.tensor(presets.SDXL_4.sigmas)).sqrt().float()
    torch.testing.assert_close(table, torch.cat([expected, torch.zeros(1)]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("preset", "channels", "asked", "size", "final", "length"),
    [
        ("sd35-medium-4", 16, (0, 0), (64, 64), (1024, 1024), 1),
        ("sd35-medium-4", 16, (1344, 768), (48, 84), (1344, 768), 1),
        ("wan-4", 16, (0, 0), (6, 20, 34), (832, 480), 81),
        ("flux2-4", 128, (0, 0), (32, 32), (1024, 1024), 1),  # ComfyUI packs 2x2
        ("flux2-4", 128, (1040, 1024), (32, 32), (1040, 1024), 1),
        ("wan22-5b-4", 48, (0, 0), (9, 14, 26), (1280, 704), 121),
    ],
)
def test_sizes_follow_the_models_cells_and_the_pixels_that_are_asked_for(
    nodes, preset, channels, asked, size, final, length
):
    model = Patcher(CONST(), channels)
    found, _, *rest = scheduled(nodes, model, preset=preset, width=asked[0], height=asked[1])
    assert found.sizes[0] == size
    assert tuple(rest) == (*final, length)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "expected a LoRA, a preset or a text as the schedule, got none: choose one"),
        ({"lora": "plain.safetensors"}, "expected a LoRA that carries its schedule, got plain.safetensors without"),
        ({"lora": "broken.safetensors"}, "expected a safetensors LoRA, got broken.safetensors"),
        ({"text": "1000:8x8,2000:9x9"}, "expected timesteps that fall from at most 1000"),
        ({"text": "1000:8,896:6"}, "expected a size a timestep, never smaller"),
        ({"text": "soon"}, "expected a schedule, got 'soon': write 1000:64"),
        ({"text": '{"timesteps": 3}'}, "expected a schedule, got '{\"timesteps\": 3}'"),
        ({"text": "1000:8,896:10,cubic"}, "expected an upscaler of bicubic, bilinear, nearest, dct, got 'cubic'"),
        ({"preset": "sd35-medium-4", "width": 1001}, "expected width and height in multiples of 16, got 1001x0"),
    ],
)
def test_what_is_no_schedule_is_one_message(nodes, loras, options, line):
    save_file({"a": torch.zeros(1)}, loras / "plain.safetensors")
    (loras / "broken.safetensors").write_bytes(b"no file")
    with pytest.raises(ValueError, match="expected") as caught:
        scheduled(nodes, Patcher(CONST()), **options)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_latent_of_another_size_other_sigmas_or_a_mask_is_one_message(nodes):
    found, sigmas, *_ = scheduled(nodes, Patcher(CONST()), text=IMAGE.to_json())

    def denoise(x, s):
        return x

    for shape, cells in (((8, 8), "8x8"), ((3, 16, 16), "3x16x16")):
        with pytest.raises(ValueError, match=rf"expected a latent of 16x16 cells, got {cells}: connect width, height"):
            sampled(nodes, found, sigmas, denoise, CONST(), torch.zeros(1, 4, *shape))
    with pytest.raises(ValueError, match=r"expected the SIGMAS of this SwD Schedule, or a part of them .*, got 1, 0"):
        sampled(nodes, found, torch.tensor([1.0, 0.5, 0.0]), denoise, CONST(), torch.zeros(1, 4, 16, 16))
    (sampler,) = nodes["SwDSampler"].execute(found, "of the schedule", 0).args
    latent = torch.zeros(1, 4, 16, 16)
    with pytest.raises(ValueError, match="expected a latent without a mask"):
        sampler.sample(Guider(denoise, CONST()), sigmas, {}, None, latent, latent, latent)


def test_the_example_workflow_is_written_and_connects_what_the_nodes_have(nodes):
    kept = json.loads((FOLDER / "example_workflows" / f"{comfyui_workflow.NAME}.json").read_text())
    assert kept == comfyui_workflow.workflow()
    by_id = {node["id"]: node for node in kept["nodes"]}
    for _, a, out, b, into, kind in kept["links"]:
        assert by_id[a]["outputs"][out]["type"] == by_id[b]["inputs"][into]["type"] == kind
    for node in kept["nodes"]:
        if node["type"] in nodes:
            schema = nodes[node["type"]].define_schema()
            slots = [slot for slot in schema.inputs if slot.kind not in ("COMBO", "STRING", "INT")]
            assert [(each["name"], each["type"]) for each in node["inputs"]] == [(slot.id, slot.kind) for slot in slots]
            assert [each["type"] for each in node["outputs"]] == [slot.kind for slot in schema.outputs]
            widgets = len(schema.inputs) - len(slots)
            control = any(slot.options.get("control_after_generate") for slot in schema.inputs)
            assert len(node["widgets_values"]) == widgets + control


def test_the_process_of_flow_models_is_comfyuis():
    noise, x0 = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(
        CONST().noise_scaling(torch.tensor(0.7), noise, x0), FlowMatching().add_noise(x0, noise, 0.7)
    )
