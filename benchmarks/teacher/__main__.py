"""Train and export the embedded teacher: `uv run python -m benchmarks.teacher`. Interrupt and repeat at will."""

import argparse
from pathlib import Path

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

from benchmarks.teacher.scenes import random_scene
from benchmarks.teacher.train import Settings, draw_scenes, encode_latents, train_transformer, train_vae

ASSET = Path("packages/swd-models/src/swd_models/assets/teacher")


def write_prompts(path: Path, num_prompts: int, *, held_out: bool, seed: int) -> None:
    """Write distinct captions, one a line."""
    rng = np.random.default_rng(seed)
    captions: dict[str, None] = {}
    while len(captions) < num_prompts:
        captions[random_scene(rng, held_out=held_out).caption] = None
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
    write_prompts(args.out / "prompts.txt", 2000, held_out=False, seed=1)
    write_prompts(args.out / "prompts_held_out.txt", 256, held_out=True, seed=2)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
