"""`swd-eval`: how good generated images and videos are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from swd_data import shell
from swd_data.errors import is_expected, out_of_memory
from swd_eval import commands
from swd_eval.processes import ElsewhereError, is_main, together


@dataclass(frozen=True)
class Build:
    """Make a blind study: a web page, its images, its key and a token for each rater."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of images or videos with the same file names, or runs of swd-distill: what their students drew. The first
    is compared with each of the others."""
    out: Path
    """Folder for the study; it must not exist."""
    prompts: Path | None = None
    """Prompts: .txt, .csv, .tsv, .jsonl, .json or .parquet. Default: metadata in each run, or a .txt a file."""
    num_prompts: int = 128
    """At most so many prompts, drawn by the seed where there are more."""
    per_prompt: int = 2
    """At most so many images of each prompt."""
    raters: int = 3
    """Number of rater tokens; each pair is shown to three raters."""
    seed: int | None = None
    """Seed of sides and order. Default: random; it is noted in key.json."""


@dataclass(frozen=True)
class Serve:
    """Show a study to raters and collect their votes."""

    study: tyro.conf.Positional[Path]
    """Folder made by `build`."""
    port: int = 8000
    """0: any free port."""
    host: str = "127.0.0.1"
    """0.0.0.0: every machine that reaches this one."""
    log: Path | None = None
    """A file that gets a line for each request, without tokens: at most four files of 1 MB."""


@dataclass(frozen=True)
class Report:
    """Count the votes: wins, ties, losses, intervals, sign tests, agreement."""

    study: tyro.conf.Positional[Path]
    """Folder made by `build`."""
    out: Path | None = None
    """Folder for table.md, results.json and preferences.png. Default: STUDY/report."""


@dataclass(frozen=True)
class Import:
    """Take votes that raters downloaded from the page opened without a server."""

    study: tyro.conf.Positional[Path]
    """Folder made by `build`."""
    votes: tyro.conf.Positional[tuple[Path, ...]]
    """Files of votes (.jsonl), each of one rater."""
    raters: tuple[str, ...] = ()
    """Names of the raters whose votes may be taken; by default anyone's, who are named."""


@dataclass(frozen=True)
class Study:
    """Ask people: blind side-by-side comparisons, three raters a pair (appendix H)."""

    action: (
        Annotated[Build, tyro.conf.subcommand("build")]
        | Annotated[Serve, tyro.conf.subcommand("serve")]
        | Annotated[Report, tyro.conf.subcommand("report")]
        | Annotated[Import, tyro.conf.subcommand("import")]
    )


def study(options: Study) -> str:
    """Run one action of a study."""
    match options.action:
        case Build() as build:
            from swd_eval.study.build import build_study

            return build_study(
                build.runs,
                build.out,
                build.prompts,
                num_prompts=build.num_prompts,
                per_prompt=build.per_prompt,
                num_raters=build.raters,
                seed=build.seed,
            )
        case Serve() as serve:
            from swd_eval.study.server import serve_study

            return serve_study(serve.study, serve.host, serve.port, serve.log)
        case Import() as taken:
            from swd_eval.study.exchange import import_votes

            return import_votes(taken.study, taken.votes, taken.raters)
        case Report() as report:
            from swd_eval.study.report import write_report

            return write_report(report.study, report.out or report.study / "report")


COMMANDS: dict[str, tuple[type, Callable[[Any], str]]] = {
    "geneval": (commands.GenEval, commands.geneval),
    "images": (commands.Images, commands.images),
    "report": (commands.Compare, commands.report),
    "study": (Study, study),
    "videos": (commands.Videos, commands.videos),
    "vbench": (commands.VBench, commands.vbench),
}
"""Name of a command: its options, and what runs them and returns a text for the user."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run `swd-eval`; a user's error is one line and exit code 2. Of several processes the main one speaks."""
    kinds = [Annotated[options, tyro.conf.subcommand(name)] for name, (options, _) in COMMANDS.items()]
    choice: Any = Union[tuple(kinds)]  # noqa: UP007
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
    options = tyro.cli(choice, prog="swd-eval", description=__doc__, args=argv, config=config)
    run = next(run for kind, run in COMMANDS.values() if isinstance(options, kind))
    shell("swd-eval", lambda: _in_all(lambda: run(options)), _explain)


def _in_all(command: Callable[[], str]) -> str | None:
    """Run a command in all processes; return what the main one has to say."""
    try:
        with together():
            text = command()
    except (ValueError, OSError) as error:
        if is_main() or not (is_expected(error) or isinstance(error, OSError | ElsewhereError)):
            raise
        raise SystemExit(2) from None  # the main process says it
    return text if is_main() else None


def _explain(error: Exception) -> str | None:
    """Return the line for an error of another process, or of a device that is full."""
    return str(error) if isinstance(error, ElsewhereError) else out_of_memory("pass a smaller --batch")(error)
