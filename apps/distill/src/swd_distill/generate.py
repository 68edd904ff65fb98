"""The teacher's images from prompts, as an image folder: resumable, and split over any number of processes."""

import json
from pathlib import Path

from tqdm import tqdm

from swd_distill.config import Config
from swd_distill.devices import device_and_dtype, processes
from swd_distill.files import claim, write_text
from swd_distill.prompts import read_prompts
from swd_distill.streams import stream
from swd_models.loading import load_teacher, resolve_model


def generate(config: Config) -> Path:
    """Sample what is missing of OUT/images and write its metadata; return the folder.

    Image i shows prompt i (prompts repeat if there are fewer) from a seed of its own: neither the number of processes
    nor an interruption changes it.
    """
    state = processes()
    device, dtype = device_and_dtype()
    folder = config.images
    prompts = prompts_of(config)
    captions = [prompts[i % len(prompts)] for i in range(config.data.num_images)]
    files = [folder / f"{i:06d}.png" for i in range(len(captions))]
    made_with = {"model": config.model, "steps": config.data.teacher_steps, "guidance": config.data.teacher_guidance}
    claim(folder / "generation.json", made_with | {"seed": config.seed, "prompts": prompts}, "images")
    mine = [i for i in range(state.process_index, len(files), state.num_processes) if not files[i].is_file()]
    if mine:
        teacher = load_teacher(config.model, dtype=dtype)
        teacher.pipe.to(device)
        with tqdm(total=len(mine), desc="generate", unit="image", disable=not state.is_local_main_process) as bar:
            for start in range(0, len(mine), config.data.batch):
                chunk = mine[start : start + config.data.batch]
                images = teacher(
                    [captions[i] for i in chunk],
                    size=config.scales.sizes[-1],
                    num_steps=config.data.teacher_steps,
                    guidance=config.data.teacher_guidance,
                    generators=[stream(config.seed, "teacher", i) for i in chunk],
                )
                for i, image in zip(chunk, images, strict=True):
                    image.save(files[i].with_suffix(".tmp"), format="png")
                    files[i].with_suffix(".tmp").replace(files[i])
                bar.update(len(chunk))
    state.wait_for_everyone()
    if state.is_main_process:
        rows = (json.dumps({"file_name": file.name, "text": text}) for file, text in zip(files, captions, strict=True))
        write_text(folder / "metadata.jsonl", "\n".join(rows) + "\n")
    state.wait_for_everyone()
    return folder


def prompts_of(config: Config) -> list[str]:
    """Return the prompts of the config, or those that come with the model."""
    shipped = Path(resolve_model(config.model)) / "prompts.txt"
    if config.data.prompts is None and not shipped.is_file():
        raise ValueError(f"expected --data.prompts FILE, got none, and {config.model} brings no prompts")
    return read_prompts(config.data.prompts or shipped)
