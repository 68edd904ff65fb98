"""From a picture to FID's Inception: resizing and normalisation, which change FID by whole points.

`swd`: as the paper's; `torch-fidelity`: as TensorFlow 1 (also torchmetrics); `clean`: as clean-fid.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

SIDE = 299


def prepare_swd(image: Image.Image) -> Tensor:
    """Return (3, 299, 299) in [-1, 1]: to 256 by Lanczos, centre crop, then bilinear without antialiasing."""
    pixels = pixels_of(centre_crop(image, 256, Image.Resampling.LANCZOS)) / 255
    return 2 * interpolate(pixels[None], size=SIDE, mode="bilinear", align_corners=False)[0] - 1


def prepare_torch_fidelity(image: Image.Image) -> Tensor:
    """Return (3, 299, 299): the whole picture by TensorFlow 1's bilinear resize, (x - 128) / 128."""
    pixels = pixels_of(image)
    return (_resize_tf1(_resize_tf1(pixels, 2), 1) - 128) / 128


def prepare_clean(image: Image.Image) -> Tensor:
    """Return (3, 299, 299): the whole picture by PIL's antialiased bicubic resize in float, (x - 128) / 128."""
    channels = [Image.fromarray(channel) for channel in pixels_of(image).numpy()]
    resized = np.stack([np.asarray(each.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for each in channels])
    return (torch.from_numpy(resized).clamp(0, 255) - 128) / 128


MODES = {"swd": prepare_swd, "torch-fidelity": prepare_torch_fidelity, "clean": prepare_clean}


def centre_crop(image: Image.Image, side: int, resampling: Image.Resampling) -> Image.Image:
    """Resize the shorter side and cut the middle, rounded as torchvision's Resize and CenterCrop do."""
    width, height = image.size
    short = min(width, height)
    resized = image.resize((side * width // short, side * height // short), resampling)
    left, top = round((resized.width - side) / 2), round((resized.height - side) / 2)
    return resized.crop((left, top, left + side, top + side))


def pixels_of(image: Image.Image) -> Tensor:
    """Return float32 (3, h, w) in [0, 255] of an RGB picture."""
    return torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1).contiguous()


def _resize_tf1(x: Tensor, axis: int) -> Tensor:
    """Resize an axis linearly between samples at i * old / 299: corners at zero, not pixel centres."""
    old = x.shape[axis]
    # In float32, as TensorFlow counts.
    position = torch.arange(SIDE, dtype=torch.float32) * (torch.tensor(old, dtype=torch.float32) / SIDE)
    low = position.floor().long()
    shape = [-1 if index == axis else 1 for index in range(x.ndim)]
    weight, high = (position - low).view(shape), (low + 1).clamp(max=old - 1)
    below = x.index_select(axis, low)
    return below + (x.index_select(axis, high) - below) * weight
