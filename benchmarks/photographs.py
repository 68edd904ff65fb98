"""Write real photographs to a folder, from those that scikit-image carries.

`uv run --group benchmarks python -m benchmarks.photographs runs/photographs`
"""

import argparse
from pathlib import Path

from PIL import Image
from skimage import data

PHOTOGRAPHS = {
    "astronaut": data.astronaut,
    "coffee": data.coffee,
    "hubble": data.hubble_deep_field,
    "motorcycle": lambda: data.stereo_motorcycle()[0],
    "rocket": data.rocket,
}


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, load in PHOTOGRAPHS.items():
        Image.fromarray(load()).save(out / f"{name}.png")
    print(f"{len(PHOTOGRAPHS)} photographs in {out}")


if __name__ == "__main__":
    main()
