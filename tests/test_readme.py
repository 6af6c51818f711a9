"""What the README shows works as printed."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from clrl.agents.learner import RunSettings
from clrl.agents.ppo import PPO
from clrl.cli import app
from clrl.envs.toy import toy_sequence
from clrl.run.assemble import sequence_of
from clrl.run.config import load_config
from clrl.study.plan import load_study
from clrl.types import Linear, NetSpec

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_sequence_of_ones_own_loads(tmp_path):
    text, _ = blocks("yaml")
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    sequence = sequence_of(load_config(path))
    assert [task.name for task in sequence.tasks] == ["Freeway", "Freeway-vflip", "Breakout"]
    assert sequence.visits == (0, 1, 2, 0)


def test_the_study_of_ones_own_loads(tmp_path):
    _, text = blocks("yaml")
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    study = load_study(path)
    assert len(study.runs) == 2 * 3 * 3  # a source or a chain
    assert len(study.experts) == 2 * 3  # of the target, and of what both sources begin with


def test_the_method_in_20_lines_learns_pulls_and_resumes(monkeypatch):
    (text,) = blocks("python")
    module = ModuleType("readme_method")
    monkeypatch.setitem(sys.modules, "readme_method", module)
    exec(compile(text, "README.md", "exec"), module.__dict__)  # noqa: S102  our own text
    assert sum(bool(line) for line in text.splitlines()[11:]) <= 25

    tasks = toy_sequence(2).tasks
    learners = []
    for _ in range(2):
        torch.manual_seed(0)
        learner = PPO(n_envs=4, n_steps=16, batch_size=32)
        spec = NetSpec((2, 12, 12), (Linear(16),), tasks)
        learner.setup(
            module.L2Init(strength=0.1), spec, RunSettings(0, 640, 2, torch.device("cpu"))
        )
        learners.append(learner)
    first, second = learners
    assert float(first.method.loss(None, None).detach()) == 0.0  # at the start itself
    for task in tasks:
        first.begin_task(task)
        first.update()
        first.end_task()
    first.begin_task(tasks[0])
    second.load_state_dict(first.state_dict(), tasks)
    assert first.update() == second.update()
    assert float(first.method.loss(None, None).detach()) > 0.0


def test_commands_and_options_exist():
    import typer

    group = typer.main.get_command(app)
    lines = [line.split("#")[0] for block in blocks("console") for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("clrl")]
    assert len(commands) >= 6
    folders = []
    for _, name, *arguments in commands:
        if name == "train" and "--dry-run" not in arguments:
            file, *overrides = arguments
            if (ROOT / file).exists():  # not the reader's own
                folders.append(load_config(ROOT / file, overrides).name)
        options = {option for p in group.commands[name].params for option in p.opts}
        assert {a for a in arguments if a.startswith("--")} <= options
    assert len(set(folders)) == len(folders) >= 4  # a run is never made over another


PAGES = [ROOT / "README.md", *sorted((ROOT / "configs" / "results").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_files_named_exist(page):
    text = page.read_text()
    assert "RESULTS" not in text
    assert not re.search(r"^@\w+@$", text, re.MULTILINE)
    for target in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (page.parent / target).exists(), target
    for place in re.findall(r"`((?:clrl|agents|envs|configs|tests)/[\w/.-]*)`", text):
        assert (ROOT / place).exists() or place == "clrl/methods/l2_init.py", place


@pytest.mark.parametrize("target", ["demo", "test", "lint", "types"])
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


RESULTS = ROOT / "configs" / "results"
FOLDERS = {  # columns of the README's table of pictures
    "Split MNIST, by task": "split_task",
    "Split MNIST, by domain": "split_domain",
    "Permuted MNIST, by task": "permuted_task",
    "Permuted MNIST, by domain": "permuted",
    "Split CIFAR-10": "split_cifar10",
}


def table_after(text: str, first_cell: str) -> list[dict[str, str]]:
    """Return the rows of each table whose first column has this title."""
    found = []
    for table in re.findall(rf"^\| {first_cell} \|.*(?:\n\|.*)+", text, re.MULTILINE):
        head, _, *rows = ([c.strip() for c in x.strip("|").split("|")] for x in table.splitlines())
        found += [dict(zip(head, row, strict=True)) for row in rows]
    return found


def test_the_table_of_pictures_is_that_of_the_results():
    shown = [row for row in table_after(README, "method") if "Split CIFAR-10" in row]
    compared = 0
    for title, folder in FOLDERS.items():
        made = table_after((RESULTS / "images" / folder / "table.md").read_text(), "method")
        accuracy = {row["method"]: row["ACC"] for row in made}
        rows = {row["method"].removesuffix(" (so far)"): row[title] for row in shown}
        assert {m: cell for m, cell in rows.items() if m in accuracy} == accuracy
        compared += len(accuracy)
    assert compared > 35


def test_tables_of_games_are_those_of_the_results():
    games = (RESULTS / "games.md").read_text()
    for name in ("runs", "table", "differences"):
        assert (RESULTS / "quick3" / f"{name}.md").read_text() in games
    for made in (RESULTS / "quick3" / "table.md", RESULTS / "pairs" / "short.md"):
        assert made.read_text() in README
        assert made.read_text() in games
    assert (RESULTS / "pathnet" / "pairs" / "short.md").read_text() in games
