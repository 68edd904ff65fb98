"""The page of latencies."""

from collections.abc import Mapping
from typing import Any

from benchmarks.latency.paper import TABLE_4
from benchmarks.latency.rows import INVENTED, TEACHER
from benchmarks.provenance import of

ROWS = ("full-4", "full-2", "scale-6", "scale-4", TEACHER)
TITLES = {
    "full-4": "full scale, 4 steps",
    "full-2": "full scale, 2 steps",
    "scale-6": "scale-wise, 6 steps",
    "scale-4": "scale-wise, 4 steps",
    TEACHER: "teacher",
}
MERGED = "A student's adapters are merged into its weights, as `SwDPipeline` samples: its networks are the base's."


def page(record: Mapping[str, Any]) -> str:
    """Lay out a record."""
    config, models = record["config"], record["models"]
    on_gpu = config["device"] == "cuda"
    unit, scale = ("s", 1.0) if on_gpu else ("ms", 1000.0)
    tables = [_latencies(models, unit, scale), _parts(models, unit, scale), *([_rates(models)] if on_gpu else [])]
    tables += [_ratios(models, on_gpu), _counted(record["reckoned"])]
    return "\n\n".join([f"# Latency\n\n`python -m benchmarks.latency`. {_what(config)}\n\n{of(record)}", *tables])


def _what(config: Mapping[str, Any]) -> str:
    protocol = (
        f"Batch {config['batch']}, {config['runs']} runs after warm-up, taken in turn row by row; from prompt to "
        "pixels, over the batch."
    )
    if config["device"] == "cuda":
        how = "compiled block by block" if config["compile"] else "not compiled"
        return f"Appendix G: half precision, {how}, TinyVAE, device events. {protocol} {MERGED}"
    return (
        f"**Run without a GPU**, so not appendix G: in place of the paper's models, tiny ones of a few blocks "
        f"(trained, or random where it says so),\nin float32, not compiled, each with its own autoencoder, by "
        f"the clock; medians.\n{protocol}\n{MERGED}\nThe paper's models were counted, not run: last table."
    )


def _latencies(models: Mapping[str, Any], unit: str, scale: float) -> str:
    lines = []
    for name, model in models.items():
        rows = model["rows"]
        cells = [f"{rows[row]['seconds'] * scale:.3g}" + _paper(name, row) for row in ROWS]
        lines.append(f"| {name} ({model['weights']}) | " + " | ".join(cells) + " |")
    some = next(iter(models.values()))["rows"][TEACHER]
    note = (
        f"In brackets: the paper's table 4, one A100. The teacher is reckoned from {len(some['sizes'])} of its steps, "
        "which are all alike; with guidance each has two passes, but FLUX's."
    )
    return _table(f"{unit} an image or video", [TITLES[row] for row in ROWS], lines) + f"\n\n{note}"


def _paper(name: str, row: str) -> str:
    value = TABLE_4.get(name, {}).get(row)
    return f" ({value:g})" if value else ""


def _parts(models: Mapping[str, Any], unit: str, scale: float) -> str:
    lines = []
    for name, model in models.items():
        for row in ROWS[:-1]:
            parts = {key: value * scale for key, value in model["rows"][row]["parts"].items()}
            steps = " ".join(f"{value:.3g}" for key, value in parts.items() if key.startswith("step"))
            rest = (f"{parts[key]:.2g}" for key in ("resize and noise", "decode", "between parts"))
            lines.append(f"| {name}, {TITLES[row]} | {parts['text']:.3g} | {steps} | " + " | ".join(rest) + " |")
    heads = ["text encoders", "steps", "resize and noise", "decode", "between parts"]
    return "## By part\n\n" + _table(f"{unit} an image, medians", heads, lines)


def _rates(models: Mapping[str, Any]) -> str:
    lines = []
    for name, model in models.items():
        for row in ROWS:
            found = model["rows"][row]
            share = f"{found['share of peak']:.0%}" if found["share of peak"] else "unknown"
            cells = f"{found['tflop']:.3g} | {found['tflops']:.3g} | {share} | {found['host gaps']:.0%}"
            lines.append(f"| {name}, {TITLES[row]} | {cells} | {found['peak_gib']:.1f} |")
    heads = ["TFLOP an image", "TFLOP/s", "of the peak", "host gaps", "GiB, peak"]
    return "## Of the device\n\n" + _table("", heads, lines)


def _ratios(models: Mapping[str, Any], on_gpu: bool) -> str:
    lines = [
        f"| {name} | {found['flops']:.3f} | {found['overhead']:.0%} | {found['expected']:.3f} | {found['seconds']:.3f} "
        f"| {found['off']:+.0%} |"
        for name, found in ((name, model["ratio"]) for name, model in models.items())
    ]
    heads = ["FLOPs of steps", "no step, of full scale", "expected", "measured", "off"]
    note = (
        "Expected: (o + s r) / (o + s), with r the ratio of the steps' FLOPs, s the seconds of the steps at full scale "
        "and o those of text, resizing, noise and decoding. Measured: whole runs, the median over rounds in each of "
        "which both ran."
    )
    if not on_gpu:
        note += (
            " The models called random are so small that a step takes what it takes to start its operations, whatever "
            "its size; `embedded` and `large` are large enough."
        )
    return "## Scale-wise over full scale, 4 steps\n\n" + _table("", heads, lines) + f"\n\n{note}"


def _counted(reckoned: Mapping[str, Any]) -> str:
    lines = []
    for name, found in reckoned.items():
        cells = [f"{found['seconds'][row]:.3g}{_paper(name, row)}" for row in ROWS[:-1]]
        flops = " ".join(f"{value / 1e12:.3g}" for value in found["flops"])
        lines.append(f"| {name} | {flops} | {found['ratio']:.3f} | " + " | ".join(cells) + " |")
    heads = ["TFLOP by step, 4 steps", "over full scale", *(TITLES[row] for row in ROWS[:-1])]
    sizes = ", ".join(f"{name} {row}" for name, row in INVENTED.items() if name in reckoned)
    note = (
        "Counted, not timed. Seconds = o + c x steps in full steps, with o and c from the paper's own full-scale rows "
        "of table 4, in brackets."
    ) + (f" Sizes that the paper does not give are ours: {sizes}." if sizes else "")
    return "## Table 4 from FLOPs\n\n" + _table("s an image, A100", heads, lines) + f"\n\n{note}"


def _table(corner: str, heads: list[str], lines: list[str]) -> str:
    return "\n".join([f"| {corner} | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|", *lines])
