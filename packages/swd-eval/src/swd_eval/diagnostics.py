"""What a distilled model tends to lose, without a learned score: tone, detail, variety, motion."""

from collections.abc import Sequence
from functools import cache

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from swd_data import Clip
from swd_eval.distances.modes import centre_crop, pixels_of
from swd_eval.measure import Measure

SIDE = 256
TONES = ("brightness", "contrast", "saturation")
LUMA = torch.tensor([0.2126, 0.7152, 0.0722])


def tone() -> Measure:
    """Return the measure of brightness, contrast and saturation, at the images' own size."""
    about = {"brightness": "mean luma", "contrast": "deviation of luma", "saturation": "mean of HSV's S"}
    return Measure("tone", about, lambda: (tone_of, lambda rows, _: torch.stack(list(rows))), len(TONES), TONES)


def spectrum() -> Measure:
    """Return the measure of radial power spectra of luma, of images cropped to 256."""
    about = {"side": SIDE, "preprocessing": "Lanczos to 256, crop, luma in [0, 1]"}
    return Measure("spectrum", about, lambda: (_square_of, _spectra_of), int(_radii(SIDE).max()) + 1)


def video_tone() -> Measure:
    """Return the measure of brightness, contrast, saturation and motion, over all frames."""
    about = tone().about | {"frames": "all", "motion": "mean absolute difference of luma from frame to frame"}
    fields = (*TONES, "motion")
    return Measure("tone", about, lambda: (video_tone_of, lambda rows, _: torch.stack(list(rows))), len(fields), fields)


def video_spectrum() -> Measure:
    """Return the measure of radial power spectra of the middle frames."""
    of_images = spectrum()
    return Measure(
        "spectrum",
        of_images.about | {"frames": "the middle one"},
        lambda: (_middle_square_of, _spectra_of),
        of_images.dim,
    )


def tone_of(image: Image.Image) -> Tensor:
    """Return brightness, contrast and saturation, each in [0, 1]."""
    pixels = pixels_of(image) / 255
    luma, high, low = _luma(pixels), pixels.amax(0), pixels.amin(0)
    saturation = torch.where(high > 0, (high - low) / high.clamp(min=1e-6), 0.0)
    return torch.stack([luma.mean(), luma.std(correction=0), saturation.mean()])


def video_tone_of(video: Clip) -> Tensor:
    """Return the means over frames of brightness, contrast and saturation, and motion, each in [0, 1]."""
    tones: list[Tensor] = []
    changes: list[Tensor] = []
    before = None
    for frame in map(Image.fromarray, video.every()):  # one at a time: a clip may be long
        luma = _luma(pixels_of(frame) / 255)
        changes += [] if before is None else [(luma - before).abs().mean()]
        tones.append(tone_of(frame))
        before = luma
    motion = torch.stack(changes).mean() if changes else torch.tensor(0.0)
    return torch.cat([torch.stack(tones).mean(0), motion[None]])


def radial_power(x: Tensor) -> Tensor:
    """Return the power of squares (B, S, S) by cycles per image, rounded; white noise of variance 1 has power 1."""
    side = x.shape[-1]
    power = torch.fft.fft2(x.double()).abs().square() / side**2
    radii = _radii(side)
    counts = radii.bincount()
    sums = torch.zeros(len(x), len(counts), dtype=power.dtype)
    return sums.index_add(1, radii, power.flatten(1)) / counts


def spectrum_distance(power: Tensor, reference: Tensor) -> float:
    """Return the root mean square difference in dB of two mean spectra (N, K), from 1 cycle to Nyquist's frequency."""
    a, b = (10 * each.double().mean(0)[1 : SIDE // 2 + 1].clamp(min=1e-12).log10() for each in (power, reference))
    return float((a - b).square().mean().sqrt())


def diversity(features: Tensor, prompts: Sequence[str]) -> Tensor:
    """Return for each prompt with several images their mean cosine distance, pair by pair."""
    groups: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(index)
    return torch.stack([_mean_distance(features[group]) for group in groups.values() if len(group) > 1])


def _mean_distance(features: Tensor) -> Tensor:
    unit = normalize(features.double(), dim=1)
    num = len(unit)
    return 1 - (unit.sum(0).square().sum() - num) / (num * (num - 1))


def _luma(pixels: Tensor) -> Tensor:
    return torch.einsum("c,chw->hw", LUMA, pixels)


def _square_of(image: Image.Image) -> Tensor:
    return _luma(pixels_of(centre_crop(image, SIDE, Image.Resampling.LANCZOS)) / 255)


def _middle_square_of(video: Clip) -> Tensor:
    [frame] = video.frames([video.num_frames // 2])
    return _square_of(Image.fromarray(frame))


def _spectra_of(squares: Sequence[Tensor], _: Sequence[str]) -> Tensor:
    return radial_power(torch.stack(list(squares)))


@cache
def _radii(side: int) -> Tensor:
    frequency = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    return torch.hypot(frequency[:, None], frequency).round().long().flatten()
