"""The counts that ship with swd-distill: iterations of the full-size presets, and what is around their denoisers.

`python -m benchmarks.counts` writes them into the package, minutes for each model: run it when an iteration changes.
Text encoders and autoencoders are those of the models' own configs, written out in `benchmarks.latency.encoders`.
"""

import argparse
import gzip
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.latency.encoders import RandomText
from benchmarks.training.encoding import empty_vae
from swd_distill.config import Config
from swd_distill.planning.cost import count_forward
from swd_distill.planning.counts import Counts, Size, key_of
from swd_distill.planning.pieces import Piece
from swd_distill.presets import PRESETS
from swd_models.loading import cond_shapes, empty_denoiser, family_of
from swd_models.logs import quiet

FOLDER = Path("apps/distill/src/swd_distill/assets/counts")


def groups() -> dict[str, tuple[Config, set[Size]]]:
    """Return the full-size presets by the first that has their counts, with the sizes of all that share them."""
    found: dict[str, tuple[Config, set[Size]]] = {}
    for name, config in PRESETS.items():
        if name.startswith("tiny"):
            continue
        first = next((first for first, (other, _) in found.items() if key_of(other) == key_of(config)), name)
        found.setdefault(first, (config, set()))[1].update(config.scales.sizes)
    return found


def count(config: Config, sizes: Iterable[Size]) -> Counts:
    """Count an iteration, text, and an image or clip on its way to latents of all sizes and back."""
    found, around = Counts.count(config, sizes), _around(config)
    parameters = {name: number for name, (number, _) in around.items() if number}
    return replace(
        found,
        parameters={**found.parameters, **parameters},
        around={name: piece for each in around.values() for name, piece in each[1].items()},
    )


def _around(config: Config) -> dict[str, tuple[int, dict[str, Piece]]]:
    """Return parameters and pieces of text encoders (bfloat16) and autoencoder (float32), for one sample."""
    family, empty = family_of(config.model), empty_denoiser(config.model)
    with torch.device("meta"):
        text = RandomText(empty.family, cond_shapes(config.model, config.data.text_tokens)).to(torch.bfloat16)
        vae = empty_vae(empty)
    latents, sizes = family.latents(vae), sorted(set(config.scales.sizes), key=math.prod)
    pieces = {"text": count_forward(text, lambda: text(1))}
    numbers = {"text": text, "vae": vae}

    def encode() -> None:
        for size in sizes:
            latents.encode(torch.zeros(1, 3, *latents.pixels(size)))

    def decode() -> None:
        latents.decode(torch.zeros(1, empty.num_channels, *sizes[-1]))

    of_vae = {"encode": count_forward(vae, encode), "decode": count_forward(vae, decode)}
    number = {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in numbers.items()}
    return {"text": (number["text"], pieces), "vae": (number["vae"], of_vae)}


def main(argv: Sequence[str] | None = None) -> None:
    """Count and write."""
    every = groups()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", choices=list(every), default=list(every))
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args(argv)
    quiet()
    for name in args.models:
        text = json.dumps(count(*every[name]).to_json(), separators=(",", ":"))
        (args.out / f"{name}.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
        print(f"{name}: {len(text) / 1e3:.0f} kB before compression")


if __name__ == "__main__":
    main()
