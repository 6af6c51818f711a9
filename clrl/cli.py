"""The commands. Everything heavy is imported inside them, so that help comes at once."""

from __future__ import annotations

import difflib
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["app", "main"]

app = typer.Typer(
    name="clrl",
    help="Train one agent on a sequence of Atari games, and see what it keeps and what it forgets.",
    epilog="Begin with: clrl train configs/smoke.yaml · --debug shows where an error comes from.",
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
RUN, LOOK = "Run", "Look"  # the panels of the help page

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder: runs/NAME/seedK.")]


class Kind(StrEnum):
    """What `clrl list` lists."""

    METHODS = "methods"
    AGENTS = "agents"
    GAMES = "games"
    DATASETS = "datasets"
    SEQUENCES = "sequences"
    BODIES = "bodies"
    PROTOCOLS = "protocols"


def _version(wanted: bool) -> None:
    if wanted:
        import clrl

        print(f"clrl {clrl.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command; `main` has seen `--debug` by then."""


@app.command(rich_help_panel=RUN)
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file: configs/*.yaml.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Keys to change: agent.learning_rate=1e-3"),
    ] = None,
    runs: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where runs go.")] = Path(
        "runs"
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")
    ] = False,
) -> None:
    """Train on a sequence of games and evaluate on all of them; prints the run folder last."""
    from clrl.errors import ClrlError
    from clrl.run.assemble import sequence_of
    from clrl.run.config import load_config, to_yaml
    from clrl.run.train import prepare
    from clrl.run.train import train as run_it

    resolved = load_config(config, overrides or [])
    if dry_run:
        try:
            prepare(resolved, sequence_of(resolved))
        except ClrlError as error:
            if error.exit_code == 3:  # it can be read before its data are here
                print(to_yaml(resolved), end="", flush=True)
            raise
        print(to_yaml(resolved), end="")
        return
    print(run_it(resolved, runs), flush=True)


@app.command(rich_help_panel=RUN)
def resume(
    run: RunArgument,
    allow_change: Annotated[
        bool,
        typer.Option("--allow-change", help="Go on although protected keys of config.yaml differ."),
    ] = False,
) -> None:
    """Continue a run that was stopped, as if it never had been; prints the run folder last."""
    from clrl.run.train import resume as go_on

    print(go_on(run, allow_change=allow_change), flush=True)


@app.command(rich_help_panel=RUN)
def transfer(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="A YAML file: configs/transfer_*.yaml.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Keys to change: run.sequence.steps=1e5"),
    ] = None,
    runs: Annotated[
        Path, typer.Option("--runs", metavar="DIR", help="Where studies and experts go.")
    ] = Path("runs"),
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Runs at a time.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what remains to be run, and stop.")
    ] = False,
) -> None:
    """Measure how tasks help one another: make a study's missing runs; prints its folder last."""
    from clrl.envs.scores import normalise_task
    from clrl.study.transfer import transfer as measure

    made = measure(
        study,
        overrides or [],
        runs=runs,
        normalise=normalise_task,
        jobs=jobs,
        plan_only=dry_run,
    )
    if not dry_run:
        print(made, flush=True)


@app.command(name="eval", rich_help_panel=RUN)
def evaluate(
    run: RunArgument,
    task: Annotated[str | None, typer.Option(metavar="NAME", help="Only this task.")] = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Games per task; else as configured.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Play full games with the newest checkpoint of a run and print raw scores."""
    from clrl.run.evaluate import evaluate_run

    rows = evaluate_run(run, task=task, episodes=episodes)
    print(json.dumps(rows, indent=2) if as_json else _table(rows))


@app.command(rich_help_panel=LOOK)
def record(
    run: RunArgument,
    task: Annotated[str | None, typer.Option(metavar="NAME", help="Only this task.")] = None,
    seconds: Annotated[
        float, typer.Option(min=1, metavar="S", help="How long a film may become.")
    ] = 60.0,
) -> None:
    """Film every game as it was played at the end of every visit: RUN/videos/*.mp4."""
    from clrl.run.record import record as films

    for film in films(run, task=task, seconds=seconds):
        score = "" if film.score is None else f"  scored {film.score:g}"
        print(f"{film.path}{score}", flush=True)


@app.command(rich_help_panel=LOOK)
def report(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_STUDY", help="Run folders, folders of them (runs/NAME), or a study."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to write; else into RUN, or here."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the verdict is about.")
    ] = None,
    question: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the runs were made to answer.")
    ] = None,
) -> None:
    """Write report.html, .md and .csv: methods beside each other, the first being compared with."""
    from clrl.envs.scores import normalise_task
    from clrl.study.report import write_report

    for path in write_report(
        paths, normalise=normalise_task, out=out, metric=metric, question=question
    ):
        print(path)


@app.command(name="list", rich_help_panel=LOOK)
def list_names(
    kind: Annotated[Kind, typer.Argument(metavar="WHAT", help=" | ".join(Kind))],
) -> None:
    """List what a configuration can name: methods, agents, games, data sets, sequences, ..."""
    from clrl.listing import names

    _print_names(names(kind.value))


@app.command(rich_help_panel=RUN)
def fetch(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME", help="Data sets: see clrl list datasets.")
    ],
) -> None:
    """Download image data sets into $CLRL_DATA (else the user's cache), with checksums checked."""
    from clrl.envs.datasets import canonical, folder
    from clrl.envs.fetch import fetch as download

    for name in [canonical(name) for name in names]:  # all are known before any is brought
        written = download(name)
        told = f"{len(written)} files written" if written else "nothing to do, all is there"
        print(f"{name}: {told} ({folder()})", flush=True)


@app.command(rich_help_panel=LOOK)
def doctor(
    runs: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where runs go.")] = Path(
        "runs"
    ),
) -> None:
    """Show versions, cores, device and ROMs, what is missing, and the command that mends it."""
    from rich.console import Console
    from rich.table import Table

    from clrl.doctor import examine, usable

    checks = examine(runs)
    table = Table(box=None, show_header=False, pad_edge=False)
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[bold red]MISSING[/]"}
    for check in checks:
        remedy = f"\n  -> {check.remedy}" if check.remedy else ""
        table.add_row(marks[check.state], check.name, _literal(check.value + remedy))
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(table)
    if not usable(checks):
        missing = ", ".join(check.name for check in checks if check.state == "missing")
        console.print(f"not usable: {missing}", style="bold red")
        raise typer.Exit(3)
    console.print("ready: clrl train configs/smoke.yaml")


@app.command(rich_help_panel=LOOK)
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Figures, or the word that several begin with."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
    pairs: Annotated[
        int, typer.Option(min=1, metavar="N", help="How often each side is measured.")
    ] = 5,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu or cuda.")] = "auto",
    show: Annotated[bool, typer.Option("--list", help="List the figures and stop.")] = False,
) -> None:
    """Measure speed, memory and start-up on this machine, each beside its goal; all by default."""
    if show:
        from clrl.bench import FIGURES

        _print_names([(f.name, f"{f.description}; goal: {f.goal_text}") for f in FIGURES])
        return
    from clrl.bench.table import bench as measure

    measure(names or [], pairs, device, as_json=as_json)


def _literal(text: str) -> Any:
    from rich.text import Text  # not parsed as markup: paths may hold brackets

    return Text(text, overflow="fold")


def _print_names(names: Sequence[tuple[str, str]]) -> None:
    """Print names with descriptions: wrapped in a terminal, one line each elsewhere."""
    width = max(len(name) for name, _ in names)
    if not sys.stdout.isatty():
        print("\n".join(f"{name:<{width}}  {text}".rstrip() for name, text in names))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, text in names:
        table.add_row(f"[bold cyan]{name}[/]", _literal(text))
    Console(highlight=False).print(table)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows of equal keys as aligned text."""
    if not rows:
        return "nothing evaluated"
    digits = {"accuracy": 2, "loss": 4}  # of pictures; scores of games have one
    cells = [
        list(rows[0]),
        *([_cell(value, digits.get(key, 1)) for key, value in row.items()] for row in rows),
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _cell(value: object, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `clrl` and exit with the codes that reliability promises.

    0 done, 2 bad configuration or usage, 3 missing data or ROM, 75 preempted, 130 interrupted,
    1 anything else. Errors are lines on stderr; a traceback comes only with `--debug`.
    """
    # Before torch is imported: threads that spin long while they wait take the cores from the
    # emulators and from other runs (measured on two shared cores: 7 times slower). Some
    # microseconds (what libgomp makes of 500) bridge the gap to a net's next layer.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "500")
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    debug = "--debug" in given
    logging.basicConfig(level=logging.WARNING, format="clrl: %(message)s", stream=sys.stderr)
    logging.getLogger("clrl").setLevel(logging.INFO)
    sys.exit(_guarded([word for word in given if word != "--debug"], debug))


def _guarded(arguments: list[str], debug: bool) -> int:
    """Run a command and return the exit code, with one line for what went wrong."""
    command: Callable[..., Any] = typer.main.get_command(app).main
    try:
        code = command(args=arguments, prog_name="clrl", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):  # some versions of typer return 130 instead
        code = 130
    except BrokenPipeError:  # `clrl list games | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _explain(error, debug, arguments)
    return _fail("interrupted", code) if code == 130 else code or 0


def _explain(error: Exception, debug: bool, arguments: list[str]) -> int:
    if hasattr(error, "format_message"):  # a usage error; typer's own class for it moves about
        return _fail(_usage(error, arguments), 2)
    from clrl.errors import ClrlError
    from clrl.run.stop import Stopped

    if isinstance(error, Stopped):
        again = error.again or f"clrl resume {error.run or 'RUN'}"
        hint = f"stopped when asked to, all is saved; go on with: {again}"
        return _fail(hint, error.exit_code)
    if isinstance(error, ClrlError):
        return _fail(str(error), error.exit_code)
    first = (str(error).splitlines() or [""])[0]
    hint = "" if debug else "; run again with --debug to see where"
    return _fail(f"{type(error).__name__}: {first}{hint}", 1)


def _usage(error: Any, arguments: list[str]) -> str:
    """Return what was wrong on the command line, and whose help tells more."""
    told = error.format_message().replace("Value error, ", "")
    names = getattr(typer.main.get_command(app), "commands", ())
    path = " ".join(["clrl", *(word for word in arguments[:1] if word in names)])
    option, near = (getattr(error, name, None) for name in ("option_name", "possibilities"))
    misspelt = difflib.get_close_matches(option or "", near or [], cutoff=0.8)
    if option and not misspelt and path in ("clrl train", "clrl transfer"):
        told += f"; keys of the file are changed as KEY=VALUE: {option.lstrip('-')}=..."
    word = told.partition("No such command ")[2].strip("'.")
    if word in list(Kind):
        told += f" Did you mean: clrl list {word}?"
    return f"{told} (see {path} --help)"


def _fail(message: str, code: int) -> int:
    for line in message.splitlines():
        print(f"clrl: error: {line}", file=sys.stderr)
    return code
