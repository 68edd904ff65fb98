"""Train and export the embedded teacher: `uv run python -m benchmarks.teacher`. Interrupt and repeat at will."""

import argparse
from collections.abc import Collection
from pathlib import Path

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

from benchmarks.teacher.scenes import random_scene
from benchmarks.teacher.train import Settings, draw_scenes, encode_latents, train_transformer, train_vae

ASSET = Path("packages/swd-models/src/swd_models/assets/teacher")


def write_prompts(
    path: Path, num_prompts: int, *, seed: int, held_out_every: int = 0, without: Collection[str]
) -> None:
    """Write distinct captions, one a line; every so manyth has a combination that training never shows."""
    rng = np.random.default_rng(seed)
    captions: dict[str, None] = {}
    while len(captions) < num_prompts:
        held_out = held_out_every > 0 and len(captions) % held_out_every == held_out_every - 1
        caption = random_scene(rng, held_out=held_out).caption
        if caption not in without:
            captions[caption] = None
    path.write_text("\n".join(captions) + "\n")


def main() -> None:
    """Train what is missing, then write the pipeline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/teacher"), help="checkpoints and log")
    parser.add_argument("--out", type=Path, default=ASSET, help="where the pipeline goes")
    args = parser.parse_args()
    settings = Settings()
    args.work.mkdir(parents=True, exist_ok=True)

    images, captions = draw_scenes(settings)
    vae = train_vae(args.work, images, settings)
    latents, scale, shift = encode_latents(vae, images)
    vae.register_to_config(scaling_factor=scale, shift_factor=shift)
    tokenizer, modules = train_transformer(args.work, latents, captions, settings)

    pipe = StableDiffusion3Pipeline(
        transformer=modules["transformer"],
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=modules["text_encoder"],
        tokenizer=tokenizer,
        text_encoder_2=modules["text_encoder_2"],
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    # Halves the download. Text encoders stay float32: transformers loads the stored dtype, diffusers loads float32.
    modules["transformer"].half()
    vae.half()
    pipe.save_pretrained(args.out)
    write_prompts(args.out / "prompts.txt", 2000, seed=1, without=())
    # What neither the teacher's nor a student's training has seen; every fourth is of an unseen combination.
    seen = {*captions, *(args.out / "prompts.txt").read_text().splitlines()}
    write_prompts(args.out / "prompts_test.txt", 256, seed=2, held_out_every=4, without=seen)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
