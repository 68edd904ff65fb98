"""`swd-spectral analyze|design|check`: from latents to a spectrum, from a spectrum to a schedule, and back."""

from collections.abc import Sequence
from typing import Annotated

import tyro

from swd_data import shell
from swd_data.errors import out_of_memory
from swd_spectral.options import Analyze, Check, Design


def main(argv: Sequence[str] | None = None) -> None:
    """Run `swd-spectral`; a user's error is one line and exit code 2, a schedule that loses something 1."""
    commands = (
        Annotated[Analyze, tyro.conf.subcommand("analyze")]
        | Annotated[Design, tyro.conf.subcommand("design")]
        | Annotated[Check, tyro.conf.subcommand("check")]
    )
    options = tyro.cli(commands, prog="swd-spectral", args=argv)
    shell("swd-spectral", lambda: _run(options), out_of_memory("give it smaller images, by --pixels"))


def _run(options: Analyze | Design | Check) -> str:
    from swd_models.logs import hush_imports

    hush_imports()
    from swd_spectral.commands import analyze, check, design  # torch: not for --help

    if isinstance(options, Analyze):
        return analyze(options)
    if isinstance(options, Design):
        return design(options)
    text, safe = check(options)
    if not safe:
        print(text, flush=True)
        raise SystemExit(1)
    return text
