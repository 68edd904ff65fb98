"""Train and export the embedded video teacher: `python -m benchmarks.video_teacher`. Interrupt and repeat at will."""

import argparse
from pathlib import Path

from benchmarks.video_teacher.clips import all_clips, unseen_captions
from benchmarks.video_teacher.train import SETTINGS, draw_clips, encode_latents, train_transformer, train_vae
from swd_data import whole_folder

ASSET = Path("packages/swd-models/src/swd_models/assets/video_teacher")


def main() -> None:
    """Train what is missing, then write the pipeline with its prompts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/video-teacher"), help="checkpoints and log")
    parser.add_argument("--out", type=Path, default=ASSET, help="where the pipeline goes")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    videos, captions = draw_clips(SETTINGS)
    vae = train_vae(args.work, videos, SETTINGS)
    latents = encode_latents(args.work, vae, videos)
    pipe = train_transformer(args.work, vae, latents, captions, SETTINGS)
    pipe.transformer.half()  # halves the download
    pipe.vae.half()
    with whole_folder(args.out, "model_index.json") as temporary:
        pipe.save_pretrained(temporary)
        prompts = {"prompts.txt": [clip.caption for clip in all_clips("train")], "prompts_test.txt": unseen_captions()}
        for name, captions in prompts.items():
            (temporary / name).write_text("\n".join(captions) + "\n")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
