import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.large_teacher.pipeline import LARGE, TRAINED, UNTRAINED, pipeline
from benchmarks.latency.rows import schedules
from benchmarks.teacher.parts import build_transformer
from swd_models import load_latents, load_text


def test_before_it_is_trained_there_is_one_with_random_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pipeline() == (UNTRAINED, False)
    size = sum(path.stat().st_size for path in UNTRAINED.rglob("*") if path.is_file())
    assert size <= 60e6
    text, latents = load_text(str(UNTRAINED)), load_latents(str(UNTRAINED))
    [prompt] = (UNTRAINED / "prompts.txt").read_text().splitlines()[:1]
    assert text([prompt])["prompt_embeds"].shape == (1, LARGE.num_tokens, 2 * LARGE.text_width)
    assert latents.encode(torch.zeros(1, 3, 128, 128)).shape == (1, LARGE.channels, 32, 32)
    written = UNTRAINED.stat().st_mtime_ns
    pipeline()
    assert UNTRAINED.stat().st_mtime_ns == written
    TRAINED.mkdir(parents=True)
    assert pipeline() == (TRAINED, True)


def test_four_growing_steps_cost_half_of_full_scale():
    with torch.device("meta"), torch.no_grad():
        transformer = build_transformer(LARGE)
        assert sum(parameter.numel() for parameter in transformer.parameters()) == pytest.approx(18.6e6, rel=0.01)

        def flops(size):
            with FlopCounterMode(display=False) as counter:
                transformer(
                    torch.empty(1, LARGE.channels, *size), torch.empty(1, LARGE.num_tokens, 256),
                    torch.empty(1, 256), torch.empty(1),
                )  # fmt: skip
            return counter.get_total_flops()

        rows = schedules("large")
        few, many = (sum(flops(size) for size in rows[name].sizes) for name in ("scale-4", "full-4"))
    assert few / many == pytest.approx(0.50, abs=0.01)
