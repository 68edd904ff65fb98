import pytest
import torch
from diffusers import SD3Transformer2DModel
from safetensors.torch import load_file

from swd_models import load_denoiser, load_lora
from swd_models.adapters import merge_adapters
from swd_models.lora.files import FILES
from swd_schedules import ScaleSchedule


def test_a_runs_lora_comes_back_unchanged_from_any_form(cli, copied):
    own = load_file(copied / "lora" / FILES["diffusers"])
    cli("export", str(copied), "--to", "comfyui")
    comfyui = copied / "export" / "comfyui"
    printed = cli("export", str(comfyui), "--model", "embedded", "--to", "diffusers", "--out", str(copied / "again"))
    assert printed == f"LoRA for diffusers in {copied}/again/{FILES['diffusers']}\n"
    again = load_file(copied / "again" / FILES["diffusers"])
    assert again.keys() == own.keys()
    assert all(torch.equal(again[key], own[key]) for key in own)


def test_a_merged_model_is_diffusers_own_and_keeps_the_schedule(cli, copied):
    assert cli("export", str(copied), "--to", "merged") == f"merged model in {copied}/export/merged/transformer\n"
    model = SD3Transformer2DModel.from_pretrained(copied / "export" / "merged", subfolder="transformer")
    by_hand = load_denoiser("embedded")
    schedule = load_lora(by_hand, copied / "lora")
    merge_adapters(by_hand)
    rounded = {name: value.bfloat16().float() for name, value in by_hand.backbone.named_parameters()}
    assert all(torch.equal(value, rounded[name]) for name, value in model.named_parameters())
    assert ScaleSchedule.from_json((copied / "export" / "merged" / "schedule.json").read_text()) == schedule


def test_a_lora_alone_asks_for_its_model(refused, copied, tmp_path):
    error = refused(["export", str(copied / "lora"), "--to", "peft"])
    assert "got no --model: pass the model that it was trained for" in error
    assert "expected a LoRA file" in refused(["export", str(tmp_path), "--model", "embedded", "--to", "peft"])


@pytest.mark.parametrize("out", ["", "lora", "samples"])
def test_a_merged_model_never_takes_the_place_of_others_files(refused, copied, snapshot, out):
    before = snapshot(copied)
    line = refused(["export", str(copied), "--to", "merged", "--out", str(copied / out)])
    assert "expected a new or an empty folder, got" in line
    assert snapshot(copied) == before


def test_a_merged_model_is_written_again_over_itself(cli, copied):
    for _ in range(2):
        cli("export", str(copied), "--to", "merged")
    assert sorted(path.name for path in (copied / "export").iterdir()) == ["merged"]
