"""Train and export the embedded teacher: `uv run python -m benchmarks.teacher`. Interrupt and repeat at will."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.teacher.scenes import Split, random_scene
from benchmarks.teacher.train import Settings, draw_scenes, encode_latents, train_transformer, train_vae
from swd_data import whole_folder

ASSET = Path("packages/swd-models/src/swd_models/assets/teacher")


def write_prompts(path: Path, num_prompts: int, splits: Sequence[Split], *, seed: int) -> None:
    """Write distinct captions, one a line, of each split in turn."""
    rng = np.random.default_rng(seed)
    captions: dict[str, None] = {}
    while len(captions) < num_prompts:
        captions[random_scene(rng, splits[len(captions) % len(splits)]).caption] = None
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
    latents = encode_latents(args.work, vae, images)
    pipe = train_transformer(args.work, vae, latents, captions, settings)
    # Halves the download. Text encoders stay float32: transformers loads the stored dtype, diffusers loads float32.
    pipe.transformer.half()
    pipe.vae.half()
    with whole_folder(args.out, "model_index.json") as temporary:
        pipe.save_pretrained(temporary)
        write_prompts(temporary / "prompts.txt", 2000, ["train"], seed=1)
        write_prompts(temporary / "prompts_test.txt", 512, ["captions", "combinations"], seed=2)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
