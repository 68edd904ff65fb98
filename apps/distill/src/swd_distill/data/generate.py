"""The teacher's images or videos from prompts, as an image folder: resumable, split over any number of processes."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from swd_data import claim, read_object, write_text
from swd_distill.config import Config
from swd_distill.data.ahead import THREADS, behind
from swd_distill.data.buckets import schedules_of
from swd_distill.data.prompts import limited, prompts_of
from swd_distill.data.samples import Size
from swd_distill.data.sources import fps_of
from swd_distill.data.streams import stream
from swd_distill.devices import device_and_dtype, processes
from swd_distill.folder import checksums
from swd_models.compiling import compiling
from swd_models.loading import first_device, load_teacher
from swd_models.parts import Teacher, to_pil
from swd_models.placing import decode_in_tiles, place_pipeline
from swd_sample.media import save_media


def generate(config: Config) -> Path:
    """Sample what is missing of OUT/images and write its metadata; return the folder.

    Image i shows prompt i (prompts repeat if there are fewer) in the shape of bucket i (buckets repeat too) from a seed
    of its own: neither the number of processes nor an interruption changes it (on a GPU up to the rounding of other
    batches).
    """
    if config.data.images is not None:
        raise ValueError(
            f"expected no --data.images with generate, which makes images, got {config.data.images}: leave it out, "
            "or run `swd-distill encode`, which reads yours"
        )
    config = limited(config)
    state, folder = processes(), config.images
    prompts, sizes = claim_images(config)
    captions = [prompts[i % len(prompts)] for i in range(config.data.num_images)]
    suffix = ".png" if len(sizes[0]) == 2 else ".mp4"
    files = [folder / f"{i:06d}{suffix}" for i in range(len(captions))]
    mine = [i for i in range(state.process_index, len(files), state.num_processes) if not files[i].is_file()]
    if mine:
        _sample(config, sizes, captions, files, mine)
    state.wait_for_everyone()
    if state.is_main_process:
        rows = (json.dumps({"file_name": file.name, "text": text}) for file, text in zip(files, captions, strict=True))
        write_text(folder / "metadata.jsonl", "\n".join(rows) + "\n")
    state.wait_for_everyone()
    return folder


def claim_images(config: Config) -> tuple[list[str], list[Size]]:
    """Claim OUT/images for the prompts and settings of a run; return the prompts, and the sizes.

    Raises:
        ValueError: the images there were made with others: a file of prompts that has changed counts too.
    """
    prompts, sizes = prompts_of(config), [schedule.sizes[-1] for schedule in schedules_of(config)]
    made_with: dict[str, Any] = {
        "model": config.model,
        "size": sizes if config.data.buckets else sizes[0],
        "steps": config.data.teacher_steps,
        "guidance": config.data.teacher_guidance,
        "seed": config.seed,
        "prompts": prompts,
    }
    made_with |= {"teacher_lora": config.teacher_lora} if config.teacher_lora else {}
    made_with |= {"base": config.training.base} if config.training.base != "bf16" else {}
    made_with |= {"text_tokens": config.data.text_tokens} if config.data.text_tokens else {}
    path, sums = config.images / "generation.json", checksums(config)
    later: dict[str, str] = {"dtype": config.training.dtype}
    later |= {"teacher_lora_checksum": sums["teacher_lora"]} if "teacher_lora" in sums else {}
    noted = read_object(path, "settings of images") if path.is_file() else later
    made_with |= {name: value for name, value in later.items() if name in noted}  # earlier versions have noted none
    claim(path, made_with, "images")
    return prompts, sizes


def _sample(config: Config, sizes: list[Size], captions: list[str], files: list[Path], mine: list[int]) -> None:
    """Sample the images of this process in batches of one size, each written while the next is sampled."""
    teacher, batch, quiet = _load(config, len(sizes)), config.data.batch, not processes().is_local_main_process
    fps = fps_of(config)
    by_size = [[i for i in mine if i % len(sizes) == bucket] for bucket in range(len(sizes))]
    progress = tqdm(total=len(mine), desc="generate", unit="image", disable=quiet)
    with progress as bar, behind(THREADS, 2 * batch) as run:
        for size, own in zip(sizes, by_size, strict=True):
            for start in range(0, len(own), batch):
                chunk = own[start : start + batch]
                pixels = teacher.pixels(
                    [captions[i] for i in chunk],
                    size=size,
                    num_steps=config.data.teacher_steps,
                    guidance=config.data.teacher_guidance,
                    generators=[stream(config.seed, "teacher", i) for i in chunk],
                )
                for i, each in zip(chunk, pixels, strict=True):
                    run(_write, each, files[i], fps)
                bar.update(len(chunk))


def teacher_of(config: Config) -> Teacher:
    """Load the teacher of a run, with the LoRAs merged into it, on the device."""
    device, dtype = device_and_dtype(config.training.dtype)
    tokens = config.data.text_tokens
    teacher = load_teacher(
        config.model,
        loras=config.teacher_lora,
        base=config.training.base,
        num_tokens=tokens,
        device=first_device(config.model, config.training.base, device),
        dtype=dtype,
    )
    if not place_pipeline(teacher.pipe, device):
        tqdm.write("text encoders, transformer and autoencoder do not fit together: each comes when it is needed")
    decode_in_tiles(teacher.latents, config.scales.sizes[-1], device, config.data.batch)
    return teacher


def _load(config: Config, num_sizes: int) -> Teacher:
    teacher = teacher_of(config)
    if config.data.compile:
        tqdm.write(compiling(config.data.compile, teacher.compile(config.data.compile, num_sizes)))
    return teacher


def _write(pixels: Tensor, path: Path, fps: int | None) -> None:
    (media,) = to_pil(pixels[None])
    save_media(media, path, fps)
