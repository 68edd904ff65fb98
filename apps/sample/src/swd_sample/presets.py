"""What a preset's name means to sampling: a base model and a schedule."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A diffusers directory, a hub id or what ships with swd-models; and a schedule as `presets.resolve` reads it."""

    model: str
    schedule: str


_SD35_MEDIUM = "stabilityai/stable-diffusion-3.5-medium"
_SD35_LARGE = "stabilityai/stable-diffusion-3.5-large"
_FLUX = "black-forest-labs/FLUX.1-dev"
_WAN = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
_KLEIN_4B = "black-forest-labs/FLUX.2-klein-base-4B"
_KLEIN_9B = "black-forest-labs/FLUX.2-klein-base-9B"
_SDXL = "stabilityai/stable-diffusion-xl-base-1.0"

SOURCES = {
    "tiny": Source("embedded", "tiny-4"),
    "tiny-long": Source("embedded", "tiny-4"),
    "tiny-video": Source("embedded-video", "tiny-video-4"),
    "tiny-flux": Source("random-flux", "1000:4x4,945:6x6,790:8x8,602:10x12"),
    "tiny-wan": Source("random-wan", "1000:2x4x6,896:3x4x8,737:4x6x10,602:6x8x12"),
    "tiny-wan22": Source("random-wan22", "1000:2x2x4,896:3x2x4,737:4x4x6,602:6x4x6"),
    "tiny-wan22-a14b": Source("random-wan22-a14b", "1000:2x4x6,896:3x4x8,737:4x6x10,602:6x8x12"),
    "tiny-sdxl": Source("random-sdxl", "1000:4x4,800:4x8,600:8x8,400:8x12"),
    "tiny-flux2": Source("random-flux2", "1000:4x4,945:6x6,790:8x8,602:10x12"),
    "tiny-qwen": Source("random-qwen", "1000:4x4,945:6x6,790:8x8,602:10x12"),
    "tiny-zimage": Source("random-zimage", "1000:4x4,945:6x6,790:8x8,602:10x12"),
    "sd35-medium": Source(_SD35_MEDIUM, "sd35-medium-6"),
    "sd35-medium-released": Source(_SD35_MEDIUM, "sd35-medium-4"),
    "sd35-large": Source(_SD35_LARGE, "sd35-large-4"),
    "sd35-large-released": Source(_SD35_LARGE, "sd35-large-4"),
    "flux": Source(_FLUX, "flux-4-paper"),
    "flux-released": Source(_FLUX, "flux-4-released"),
    "wan": Source(_WAN, "wan-4"),
    "wan-spatial": Source(_WAN, "wan-4-spatial"),
    "sdxl": Source(_SDXL, "sdxl-4"),
    "flux2-klein-4b": Source(_KLEIN_4B, "flux2-4"),
    "flux2-klein-9b": Source(_KLEIN_9B, "flux2-4"),
    "qwen-image": Source("Qwen/Qwen-Image", "flux-4-paper"),
    "z-image": Source("Tongyi-MAI/Z-Image", "flux-4-paper"),  # FLUX.1's autoencoder
    "wan22-5b": Source("Wan-AI/Wan2.2-TI2V-5B-Diffusers", "wan22-5b-4"),
    "wan22-a14b": Source("Wan-AI/Wan2.2-T2V-A14B-Diffusers", "wan-4"),  # Wan2.1's autoencoder
}
