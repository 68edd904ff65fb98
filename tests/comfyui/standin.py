"""What the nodes need of ComfyUI, which is on no package index, as small classes of the same contract.

What is assumed, and where ComfyUI (0.3.64 and later) has it:
- `comfy_api/latest/_io.py`: `io.Schema`, `io.ComfyNode` with `define_schema` and the classmethod `execute`,
  `io.NodeOutput` (`.args`), `io.Custom`, and inputs and outputs by type; `comfy_api/latest/__init__.py`:
  `ComfyExtension.get_node_list`.
- `comfy/samplers.py`: `KSAMPLER(sampler_function).sample` scales the noise, wraps the model so that it knows the latent
  (`KSamplerX0Inpaint.latent_image`), calls `sampler_function(model, x, sigmas, extra_args=, callback=, disable=)`, and
  undoes the scaling of the last level; the model is called as `model(x, sigma, **extra_args)` and gives x0.
- `comfy/model_sampling.py`: `CONST` (flow) and `EPS` with their `noise_scaling` and `inverse_noise_scaling`;
  `ModelSamplingDiscrete` has a table of levels, `sigma(timestep)` and `log_sigmas`; EPS models see
  x / sqrt(sigma^2 + 1).
- `comfy/latent_formats.py`: `latent_channels`, 128 of FLUX.2, whose 2x2 cells are the channels of one in the order of
  `pixel_unshuffle`; `comfy/sample.py`: `fix_empty_latent_channels` gives an image of
  Qwen-Image, whose format is Wan's, an axis for its one frame.
- `folder_paths.py`: `get_filename_list` and `get_full_path_or_raise`.
"""

import math
import sys
from types import ModuleType, SimpleNamespace

import torch


class Slot:
    """An input or an output: its type, its id and its options."""

    def __init__(self, kind, id=None, **options):
        self.kind, self.id, self.options = kind, id, options


def _type(kind):
    return SimpleNamespace(
        Input=lambda id, **options: Slot(kind, id, **options), Output=lambda **options: Slot(kind, **options)
    )


class Schema:
    def __init__(self, *, node_id, display_name, category, description, inputs, outputs):
        self.node_id, self.display_name, self.category, self.description = node_id, display_name, category, description
        self.inputs, self.outputs = inputs, outputs


class ComfyNode:
    pass


class NodeOutput:
    def __init__(self, *args):
        self.args = args


class ComfyExtension:
    pass


class CONST:
    """Of flow models."""

    sigma_max = torch.tensor(1.0)

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        return sigma * noise + (1 - sigma) * latent_image

    def inverse_noise_scaling(self, sigma, latent):
        return latent / (1 - sigma)


class EPS:
    """Of SDXL: a table of 1000 levels from squares of an even ramp."""

    def __init__(self):
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        alphas = (1 - betas).cumprod(0)
        self.sigmas = ((1 - alphas) / alphas).sqrt().float()
        self.log_sigmas, self.sigma_max = self.sigmas.log(), self.sigmas[-1]

    def sigma(self, timestep):
        return self.log_sigmas[timestep.long()].exp()

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        noise = noise * (torch.sqrt(1 + sigma**2) if max_denoise else sigma)
        noise += latent_image
        return noise

    def inverse_noise_scaling(self, sigma, latent):
        return latent


class KSAMPLER:
    def __init__(self, sampler_function, extra_options=None, inpaint_options=None):
        self.sampler_function, self.extra_options = sampler_function, extra_options or {}

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None):
        extra_args["denoise_mask"] = denoise_mask
        model = _Model(model_wrap)
        model.latent_image = latent_image
        noising = model_wrap.inner_model.model_sampling
        is_max = math.isclose(float(noising.sigma_max), float(sigmas[0]), rel_tol=1e-5)
        x = noising.noise_scaling(sigmas[0], noise, latent_image, is_max)
        told = callback and (lambda x: callback(x["i"], x["denoised"], x["x"], len(sigmas) - 1))
        found = self.sampler_function(
            model, x, sigmas, extra_args=extra_args, callback=told, disable=True, **self.extra_options
        )
        return noising.inverse_noise_scaling(sigmas[-1], found)


class _Model:
    """What a sampler calls: the guider, which knows the mask and the latent."""

    def __init__(self, inner_model):
        self.inner_model = inner_model

    def __call__(self, x, sigma, denoise_mask, model_options=None, seed=None):
        assert denoise_mask is None
        return self.inner_model(x, sigma, model_options=model_options, seed=seed)


class Guider:
    """A model at CFG 1: `denoise(x_t, sigma) -> x0` of this workspace, in ComfyUI's terms."""

    def __init__(self, denoise, noising):
        self.inner_model, self._denoise = SimpleNamespace(model_sampling=noising), denoise

    def __call__(self, x, sigma, model_options=None, seed=None):
        noising = self.inner_model.model_sampling
        if isinstance(noising, CONST):
            return self._denoise(x, sigma)
        shape = (-1, *[1] * (x.ndim - 1))
        timestep = (noising.sigmas[None] - sigma[:, None]).abs().argmin(1)
        return self._denoise(x / (sigma.view(shape) ** 2 + 1).sqrt(), timestep / 1000)


class Patcher:
    """The MODEL that travels between nodes."""

    def __init__(self, noising, channels=16):
        self._objects = {
            "model_sampling": noising,
            "latent_format": SimpleNamespace(latent_channels=channels),
        }

    def get_model_object(self, name):
        return self._objects[name]


def install(monkeypatch, loras):
    """Put the stand-in where the nodes look for ComfyUI; `loras` is the folder of LoRA files."""
    names = ("Model", "Combo", "String", "Int", "Sigmas", "Sampler")
    kinds = {name: _type(name.upper()) for name in names}
    io = SimpleNamespace(Schema=Schema, ComfyNode=ComfyNode, NodeOutput=NodeOutput, Custom=_type, **kinds)
    parts = {
        "comfy": {},
        "comfy.samplers": {"KSAMPLER": KSAMPLER},
        "comfy_api": {},
        "comfy_api.latest": {"io": io, "ComfyExtension": ComfyExtension},
        "folder_paths": {
            "get_filename_list": lambda folder: sorted(path.name for path in loras.iterdir()),
            "get_full_path_or_raise": lambda folder, name: str(loras / name),
        },
    }
    for name, contents in parts.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["comfy"].samplers = sys.modules["comfy.samplers"]
