import json

import pytest
import torch
from diffusers import SD3Transformer2DModel
from peft import PeftModel
from safetensors.torch import load_file, save_file

from swd_models import load_lora, save_lora, share_base
from swd_models.adapters import adapter_parameters, adapter_state, load_adapter_state
from swd_models.lora.files import FILES
from swd_models.lora.loading import lora_config
from swd_models.tiny import tiny_cond, tiny_sd3
from swd_schedules import ScaleSchedule

SCHEDULE = ScaleSchedule.square((1000.0, 602.15), (8, 16))


@pytest.fixture(scope="module")
def student():
    student = share_base(tiny_sd3(), lora_config(tiny_sd3(), 4, alpha=8), fake=False).student
    with torch.no_grad():
        for parameter in adapter_parameters(student):
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return student


def _predict(denoiser):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        return denoiser(torch.randn(2, 4, 8, 8, generator=generator), torch.tensor([0.9, 0.4]), tiny_cond("sd3", 2)).x0


@pytest.mark.parametrize("form", list(FILES))
def test_a_saved_lora_loads_with_its_schedule_and_predicts_the_same(student, tmp_path, form):
    path = save_lora(student, tmp_path, schedule=SCHEDULE, form=form)
    for source in (path, tmp_path):
        fresh = tiny_sd3()
        assert load_lora(fresh, source) == SCHEDULE
        torch.testing.assert_close(_predict(fresh), _predict(student))


def test_stock_diffusers_reads_the_diffusers_form(student, tmp_path):
    save_lora(student, tmp_path, schedule=SCHEDULE)
    backbone = tiny_sd3().backbone
    backbone.load_lora_adapter(str(tmp_path), weight_name=FILES["diffusers"], prefix="transformer")
    fresh = tiny_sd3()
    fresh.backbone = backbone
    torch.testing.assert_close(_predict(fresh), _predict(student))


def test_stock_peft_reads_the_peft_form(student, tmp_path):
    save_lora(student, tmp_path, schedule=SCHEDULE, form="peft")
    fresh = tiny_sd3()
    fresh.backbone = PeftModel.from_pretrained(fresh.backbone, tmp_path).base_model.model
    assert isinstance(fresh.backbone, SD3Transformer2DModel)
    torch.testing.assert_close(_predict(fresh), _predict(student))


def test_an_adapter_without_metadata_loads_with_alpha_equal_to_rank(student, tmp_path):
    path = save_lora(student, tmp_path, schedule=None)
    save_file(load_file(path), path)
    fresh = tiny_sd3()
    assert load_lora(fresh, path) is None
    assert fresh.backbone.peft_config["default"].lora_alpha == 4


def test_a_missing_or_broken_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a LoRA file, or a folder"):
        load_lora(tiny_sd3(), tmp_path)
    (tmp_path / FILES["diffusers"]).write_bytes(b"not a tensor")
    with pytest.raises(ValueError, match="expected a safetensors LoRA"):
        load_lora(tiny_sd3(), tmp_path)


def test_a_lora_of_another_model_is_refused(student, tmp_path):
    path = save_lora(student, tmp_path, schedule=SCHEDULE)
    wider = tiny_sd3(num_attention_heads=4, caption_projection_dim=64)
    with pytest.raises(ValueError, match=r"expected width 64 in .*, got 32"):
        load_lora(wider, path)
    shallow = tiny_sd3(num_layers=2)
    with pytest.raises(ValueError, match="which is no layer of the model"):
        load_lora(shallow, path)
    save_file(load_file(path), path, {"swd_family": "flux"})
    with pytest.raises(ValueError, match="expected a LoRA for sd3, got one for flux"):
        load_lora(tiny_sd3(), path)


def test_adapter_state_of_another_rank_is_refused(student):
    other = share_base(tiny_sd3(), 2, fake=False).student
    with pytest.raises(ValueError, match="expected adapters of rank 2"):
        load_adapter_state(other, adapter_state(student))


def test_the_peft_config_is_json(student, tmp_path):
    save_lora(student, tmp_path, schedule=None, form="peft")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 8, "LORA")
