"""`swd-distill zoo`: LoRAs beside each other, a table made from run folders, published folders and cards of the hub."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from swd_data import is_hub_id, read_object, write_text

if TYPE_CHECKING:
    from swd_schedules import ScaleSchedule

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Zoo:
    """Write a table of LoRAs: what each is for, its steps, its licence, how it was made, what was measured."""

    loras: tyro.conf.Positional[tuple[str, ...]]
    """Run folders, folders of `swd-distill publish`, or OWNER/NAME on the hub."""
    out: Path | None = None
    """The Markdown file to write. Default: the table is printed."""


@dataclass(frozen=True)
class Entry:
    """A LoRA's row."""

    name: str
    base: str
    steps: str
    licence: str
    made: str
    measured: str

    def __str__(self) -> str:
        cells = (self.name, self.base, self.steps, self.licence, self.made, self.measured)
        return f"| {' | '.join(cell.replace('|', ' ') for cell in cells)} |"


def zoo(options: Zoo) -> str:
    """Write or return the table."""
    if not options.loras:
        raise ValueError("expected run folders, published folders or OWNER/NAME of the hub, got none")
    text = table([entry(each) for each in options.loras])
    if options.out is None:
        return text
    write_text(options.out, f"{text}\n")
    return f"{len(options.loras)} LoRA(s) in {options.out}"


def table(entries: Sequence[Entry]) -> str:
    """Lay out rows."""
    head = "| LoRA | base | steps: latent sizes | licence | made by | measured |\n|---|---|---|---|---|---|"
    return "\n".join([head, *map(str, entries)])


def entry(source: str) -> Entry:
    """Return the row of a run folder, of a published folder, or of a repository of the hub.

    Raises:
        ValueError: it is none of these, or has no LoRA or no card.
    """
    folder = Path(source)
    if (folder / "config.json").is_file():
        return _of_run(folder)
    card = _card(source)
    title = re.search(r"^# (.+)$", card, re.MULTILINE)
    return _of_card(title[1] if title and folder.is_dir() else source, card, source)


def _of_run(run: Path) -> Entry:
    from swd_distill.card import LICENCES, recipe_of
    from swd_distill.publish import metrics_of
    from swd_models.loading import resolve_model

    config = read_object(run / "config.json", "the config of a run")
    model = str(config["model"])
    ships = resolve_model(model) != model
    known, own = ("apache-2.0", "") if ships else LICENCES.get(model, ("not said", ""))
    base = f"`{model}` of swd-models" if ships else _linked(model)
    iterations = f"{config['training']['iterations']:,} iterations"
    made = f"{recipe_of(config)}; {iterations}"
    return Entry(f"`{run.resolve().name}`", base, _steps(run / "lora"), own or known, made, _numbers(metrics_of(run)))


def _of_card(name: str, text: str, source: str) -> Entry:
    from huggingface_hub import ModelCard

    try:
        data = ModelCard(text).data
    except Exception as error:  # of YAML, or of what the hub expects in it
        raise ValueError(f"expected a card of the hub, got {source}, whose head cannot be read: {error}") from error
    base, licence = data.get("base_model"), data.get("license")
    base = base[0] if isinstance(base, list) and base else base
    licence = data.get("license_name") if licence == "other" else licence
    losses = re.search(r"^- losses: (.*)$", text, re.MULTILINE)
    iterations = re.search(r"^- ([\d,]+ iterations)", text, re.MULTILINE)
    made = "; ".join(found[1] for found in (losses, iterations) if found)
    rows = text.partition("\n## Measured\n")[2].partition("\n## ")[0]
    number = r"^\| (\S+) \| (-?\d+(?:\.\d+)?(?:e[-+]?\d+)?) \|$"
    measured = {key: float(value) for key, value in re.findall(number, rows, re.MULTILINE)}
    linked = _linked(name) if is_hub_id(name) else f"`{name}`"
    base = _linked(str(base)) if base else "not said"
    return Entry(linked, base, _steps(source), str(licence or "not said"), made or "not said", _numbers(measured))


def _card(source: str) -> str:
    """Return the card of a folder or a repository."""
    path = Path(source) / "README.md"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    if not is_hub_id(source):
        raise ValueError(f"expected a run folder, a published folder or OWNER/NAME of the hub, got {source}")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(source, "README.md")).read_text(encoding="utf-8")
    except OSError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"expected a card of {source} on the hub, got none ({reason:.160})") from error


def _steps(lora: Path | str) -> str:
    """Return the steps that a LoRA's header tells; of two experts, which have one schedule, the first one's."""
    schedule = next(filter(None, map(_schedule, _files(lora))), None)
    if schedule is None:
        return "not said"
    return f"{len(schedule.sizes)}: {', '.join('x'.join(map(str, size)) for size in schedule.sizes)}"


def _files(lora: Path | str) -> list[str]:
    """Return where a LoRA may lie, in diffusers' form: one file, since others say the same."""
    from swd_models.known.facts import EXPERTS
    from swd_models.lora.files import FILES

    places = [str(lora), f"{lora}/{EXPERTS[0]}"]
    return [f"{place}/{FILES['diffusers']}" for place in places] + [str(lora)]


def _schedule(file: str) -> "ScaleSchedule | None":
    from swd_models.lora.files import schedule_of

    try:
        return schedule_of(file)
    except ValueError:  # none there
        return None


def _numbers(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()) or "nothing"


def _linked(name: str) -> str:
    return f"[{name}]({HUB}/{name})" if is_hub_id(name) else f"`{Path(name).name}`"
