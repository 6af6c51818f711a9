"""Reports: what they say of runs made by hand, that names stay names, what is refused."""

from __future__ import annotations

import csv
import doctest
import html
import io
import json
import re
import tracemalloc
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from scipy import stats

from clrl import cli
from clrl.run.records import read_records
from clrl.study.curves import run_curve
from clrl.study.importances import VisitImportance, save_visit
from clrl.study.report import axes, document, elements, write_report
from clrl.study.report.charts import Line, LineChart
from clrl.study.report.comparison import random_play
from clrl.study.report.learning import line_of
from clrl.study.report.runs import read_run
from clrl.study.report.scores import estimate
from clrl.study.report.tidy import tidy_csv
from clrl.types import ClrlError

STEPS = 100  # of a visit


def config(seed: int, **changes: Any) -> dict[str, Any]:
    """Return a resolved configuration; `changes` by section."""
    data: dict[str, Any] = {
        "name": "made",
        "sequence": {"steps": STEPS, "tasks": ["A", "B"], "scenario": "task"},
        "agent": {"name": "ppo", "learning_rate": 0.001},
        "method": {"name": "finetune"},
        "net": {"body": "a3c", "heads": "per_task"},
        "protocol": {"preset": "classic", "sticky": 0.0},
        "evaluation": {"every": 50, "episodes": 2, "policy": "sample"},
        "seed": seed,
    }
    for section, keys in changes.items():
        data[section] = data.get(section, {}) | keys
    return data


def write_run(
    runs: Path,
    name: str,
    seed: int,
    matrix: Sequence[Sequence[float | None]],
    *,
    tasks: Sequence[str] = ("A", "B"),
    visits: Sequence[int] = (0, 1),
    during: Mapping[tuple[int, int, str], float] | None = None,
    metrics: Sequence[Mapping[str, Any]] = (),
    cost: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    unit: str = "return",
) -> Path:
    """Write a run whose evaluations give `matrix`: two games, 1 below and 1 above each score.

    `during` has scores by (visit, step of the run, task).
    """
    path = runs / name / f"seed{seed}"
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config(seed, **(settings or {}))))
    environment = {"python": "3.12.1", "packages": {"torch": "2.10.0"}, "processor": "Z80"}
    (path / "environment.json").write_text(json.dumps(environment | {"cores": 2, "commit": None}))
    (path / "STATUS").write_text("done\n" if len(matrix) == len(visits) + 1 else "running\n")
    rows: list[dict[str, Any]] = []

    def evaluated(visit: int, phase: str, step: int, task: str, score: float | None) -> None:
        where = {"step": step, "visit": visit, "phase": phase, "task_evaluated": task}
        if score is not None:
            rows.extend(where | {unit: score + noise} for noise in (-1.0, 1.0))

    for i, scores in enumerate(matrix):
        for (visit, step, task), score in (during or {}).items():
            if visit == i:
                evaluated(visit, "during", step, task, score)
        for task, score in zip(tasks, scores, strict=True):
            evaluated(i, "end" if i else "start", i * STEPS, task, score)
    (path / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    summary = {"tasks": list(tasks), "visits": list(visits), "config_hash": "abcdef0123"}
    (path / "summary.json").write_text(json.dumps(summary | {"cost": dict(cost or {})}))
    return path


def share(task: str, score: float) -> float:
    """Put scores on a scale where random play (10) has 0 and a human (20) 1."""
    return (score - 10) / 10


def reported(out: Path, *paths: Path, normalise: Any = share, **options: Any) -> dict[str, str]:
    """Return the three files of a report by their ending."""
    written = write_report(paths, normalise=normalise, out=out, **options)
    return {path.suffix[1:]: path.read_text() for path in written}


def cells(text: str, table: str = "") -> list[dict[str, str]]:
    """Return the rows of a report's CSV, of one table; each with its columns' values."""
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for cell in csv.DictReader(io.StringIO(text)):
        if table in cell["table"]:
            own = rows.setdefault((cell["section"], cell["table"], cell["row"]), {})
            own[cell["column"]] = cell["value"]
    return list(rows.values())


LEARNED = [[10.0, 10.0], [20.0, 12.0], [16.0, 18.0]]  # A loses 4 of 10, B gains 8 of 10


def three(runs: Path, name: str, more: float, n: int = 3, **options: Any) -> Path:
    """Write three runs whose last scores are `more`, `more` + 1 and `more` + 2 above `LEARNED`."""
    for seed in range(n):
        last = [score + more + seed for score in LEARNED[2]]
        write_run(runs, name, seed, [*LEARNED[:2], last], **options)
    return runs / name


# -------------------------------------------------------------------------------- what it says


def test_the_examples_of_the_docstrings_hold() -> None:
    for module in (axes, document, elements):
        assert doctest.testmod(module).failed == 0


def test_the_verdict_is_the_mean_over_runs_on_the_common_scale(runs: Path, tmp_path: Path) -> None:
    text = reported(tmp_path, three(runs, "first", 0), three(runs, "second", 5))["csv"]
    first, second = cells(text, "Every metric, human-normalised score")
    assert first["runs"] == second["runs"] == "3"
    # the last rows are (16 + s, 18 + s), s = 0, 1, 2: (0.6 + 0.8) / 2 + 0.1, and 0.5 above it
    assert float(first["average performance"]) == pytest.approx(0.8)
    assert float(second["average performance"]) == pytest.approx(1.3)
    # 0.6, 0.7, 0.8, 0.8, 0.9, 1.0 without the lowest and the highest
    assert float(first["IQM of last scores"]) == pytest.approx(0.8)
    # A: 20 -> 16 + s
    assert float(first["forgetting (Chaudhry)"]) == pytest.approx(0.3)
    assert float(first["backward transfer (Lopez-Paz)"]) == pytest.approx(-0.3)
    # B: before its visit 12, untrained 10
    assert float(first["forward transfer (Lopez-Paz)"]) == pytest.approx(0.2)
    # a mean of three resampled runs lies between the lowest and the highest of them
    low, high = (float(first[f"average performance {end}"]) for end in ("low", "high"))
    assert 0.7 - 1e-9 <= low < 0.8 < high <= 0.9 + 1e-9


def test_methods_are_paired_by_seed_with_the_first(runs: Path, tmp_path: Path) -> None:
    text = reported(tmp_path, three(runs, "first", 0), three(runs, "second", 5))["csv"]
    (row,) = cells(text, "Beside first")
    assert (row["method"], row["pairs of the same seed"]) == ("second", "3")
    ends = [row[f"their difference in average performance{end}"] for end in ("", " low", " high")]
    assert [float(x) for x in ends] == pytest.approx([0.5, 0.5, 0.5])  # in every pair
    chance = row["chance of a higher last score (any two runs, mean over tasks)"]
    assert float(chance) == 1.0  # 21.. against 16..18, 23.. 18..20
    (section,) = [r for r in cells(text) if "text" in r and "less first" in r["text"]]
    assert (
        "(3 pairs: the interval leaves 0 out, but fewer than 6 pairs are no evidence)"
        in (section["text"])
    )


def test_a_difference_has_students_interval_and_is_better_from_six_pairs_on(
    runs: Path, tmp_path: Path
) -> None:
    apart = [4.0, 5.0, 6.0, 5.5, 4.5, 5.0]  # of both tasks
    for seed, more in enumerate(apart):
        write_run(runs, "first", seed, LEARNED)
        write_run(runs, "second", seed, [*LEARNED[:2], [score + more for score in LEARNED[2]]])
    text = reported(tmp_path, runs / "first", runs / "second")
    (row,) = cells(text["csv"], "Beside first")
    ends = [row[f"their difference in average performance{end}"] for end in (" low", " high")]
    shares = [more / 10 for more in apart]
    oracle = stats.ttest_1samp(shares, 0.0).confidence_interval(0.95)
    assert [float(end) for end in ends] == pytest.approx(list(oracle))
    assert "(6 pairs: the interval leaves 0 out: better)" in text["html"]


def test_runs_of_the_same_seeds_are_drawn_together_and_of_others_apart(
    runs: Path, tmp_path: Path
) -> None:
    paths = [three(runs, "first", 0), three(runs, "same", 0), three(runs, "more", 0, n=4)]
    same, more = cells(reported(tmp_path, *paths)["csv"], "Beside first")
    chance = "chance of a higher last score (any two runs, mean over tasks)"
    assert (same[f"{chance} low"], same[f"{chance} high"]) == ("0.5", "0.5")  # in every draw
    assert float(more[f"{chance} low"]) < 0.5 < float(more[f"{chance} high"])


def test_the_last_scores_of_a_run_are_drawn_together(runs: Path, tmp_path: Path) -> None:
    """Where both tasks have the same scores, both say no more than one: of 3 runs, 27 draws."""
    for seed, score in enumerate((12.0, 15.0, 20.0)):
        write_run(runs, "same", seed, [[10.0, 10.0], [20.0, 10.0], [score, score]])
    (row,) = cells(reported(tmp_path, runs / "same")["csv"], "Every metric")
    # one draw in 27 is thrice the lowest, more than 2.5 %; of two tasks apart, one in 729
    assert float(row["IQM of last scores low"]) == pytest.approx(0.2)
    assert float(row["IQM of last scores high"]) == pytest.approx(1.0)


def test_only_seeds_with_a_value_are_pairs(runs: Path, tmp_path: Path) -> None:
    for seed in range(3):
        write_run(runs, "first", seed, LEARNED)
        write_run(runs, "second", seed, [[10.0, None if seed else 10.0], *LEARNED[1:]])
    text = reported(
        tmp_path, runs / "first", runs / "second", metric="forward_transfer", normalise=share
    )
    (row,) = cells(text["csv"], "Beside first")
    assert row["pairs of the same seed"] == "1"  # forward transfer needs the first row
    assert float(row["their difference in forward transfer (Lopez-Paz)"]) == 0.0
    # the last scores are known and equal, so every pair of runs is a tie, whatever the metric
    assert float(next(v for k, v in row.items() if k.endswith("mean over tasks)"))) == 0.5


def test_an_interval_around_0_shows_no_difference(runs: Path, tmp_path: Path) -> None:
    for seed, more in enumerate((-1.0, 0.0, 2.0)):
        write_run(runs, "first", seed, LEARNED)
        write_run(runs, "second", seed, [*LEARNED[:2], [score + more for score in LEARNED[2]]])
    page = reported(tmp_path, runs / "first", runs / "second")["html"]
    assert "the interval holds 0: no difference is shown" in page
    assert "better)" not in page


def test_a_mean_over_runs_needs_every_run() -> None:
    assert estimate([1.0, 3.0]).value == 2.0
    assert estimate([1.0, None]).value is None
    assert estimate([]).value is None


def test_a_mean_curve_has_the_steps_that_all_runs_have(runs: Path, tmp_path: Path) -> None:
    for seed in range(2):
        during = {(1, 50, "A"): 14.0, (1, 60 + seed, "A"): 15.0}
        write_run(runs, "uneven", seed, LEARNED, during=during)
    curve = cells(reported(tmp_path, runs / "uneven")["csv"], "learning curves")
    assert [r["step"] for r in curve if r["task"] == "A"] == ["0", "50", "100", "200"]


def test_a_task_that_is_met_leaves_no_gap_in_the_others(runs: Path, tmp_path: Path) -> None:
    matrix = [[10.0, None], [20.0, None], [16.0, 18.0]]  # as of progressive nets
    met = {(2, 100, "B"): 11.0, (2, 150, "A"): 17.0, (2, 150, "B"): 14.0}
    for seed in range(2):
        write_run(runs, "columns", seed, matrix, during=met)
    text = reported(tmp_path, runs / "columns")
    curve = {(r["task"], r["step"]): r for r in cells(text["csv"], "learning curves")}
    scores = {"0": 10.0, "100": 20.0, "150": 17.0, "200": 16.0}
    told = {step: float(row["mean"]) for (task, step), row in curve.items() if task == "A"}
    assert told == scores and curve["A", "100"]["runs"] == "20, 20"
    told = {step: float(row["mean"]) for (task, step), row in curve.items() if task == "B"}
    assert told == {"100": 11.0, "150": 14.0, "200": 18.0}
    drawn = line_of(0, [read_run(runs / "columns" / f"seed{k}").curves["A"] for k in range(2)])
    points = [(float(step), score) for step, score in scores.items()]
    assert drawn.mean == points and drawn.runs == [points, points]  # thick, and thin


def test_for_a_metric_that_is_better_low_the_lowest_leads(runs: Path, tmp_path: Path) -> None:
    paths = (three(runs, "first", 0, n=6), three(runs, "second", 5, n=6))
    page = reported(tmp_path, *paths, metric="forgetting")["html"]
    assert "second has the lowest forgetting" in page
    assert "leaves 0 out: better" in page  # second forgets less


def test_fewer_than_three_runs_have_no_interval_and_a_warning(runs: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(runs, "few", seed, LEARNED)
    text = reported(tmp_path, runs / "few")
    assert "fewer than 3 finished runs of few: no intervals" in text["html"]
    assert "fewer than 3 finished runs" in text["md"]
    assert " low" not in "".join(c["column"] for c in csv.DictReader(io.StringIO(text["csv"])))
    assert 'fill-opacity="0.18"' not in text["html"]  # a band
    three(runs, "enough", 0)
    text = reported(tmp_path, runs / "enough")
    assert "no intervals" not in text["html"]
    assert "fewer than 6 runs of enough: bootstrap intervals of so few" in text["html"]
    assert 'fill-opacity="0.18"' in text["html"]


def test_too_small_runs_are_called_so(runs: Path, tmp_path: Path) -> None:
    page = reported(tmp_path, three(runs, "small", 0))["html"]
    assert "100 agent steps a visit; published scores are mostly at 10,000,000" in page
    assert "a mean over only 2 full games" in page
    assert "was not learned" not in page
    stuck = [[10.0, 10.0], [20.0, 10.0], [20.0, 9.0]]
    write_run(runs, "stuck", 0, stuck)
    page = reported(tmp_path, runs / "stuck")["html"]
    assert "stuck: B was not learned by 1 of 1 runs" in page


def test_curves_matrix_and_forgetting_are_the_stored_scores(runs: Path, tmp_path: Path) -> None:
    during = {(1, 50, "A"): 14.0, (2, 150, "A"): 18.0}
    text = reported(tmp_path, three(runs, "one", 0, during=during))["csv"]
    curve = {(r["task"], r["step"]): r for r in cells(text, "learning curves")}
    assert [key for key in curve if key[0] == "A"] == [
        ("A", step) for step in ("0", "50", "100", "150", "200")
    ]
    assert curve["A", "50"]["mean"] == "14.0"
    assert curve["A", "200"]["runs"] == "16, 17, 18"
    before, _, last = cells(text, "one: mean of 3 runs")
    assert before == {"after visit": "before training", "A": "10.0", "B": "10.0"}
    assert last == {"after visit": "2. B", "A": "17.0", "B": "19.0"}
    (lost,) = cells(text, "forgetting by task")
    assert (lost["task"], lost["forgotten"]) == ("A", "3.0")
    # its ends: (14 + 20) / 2, and (18 + 16 + s) / 2
    assert float(lost["F_j (CW)"]) == pytest.approx(17 - 17.5)


def test_what_was_never_played_is_a_dash_and_no_zero(runs: Path, tmp_path: Path) -> None:
    matrix = [[10.0, None], [20.0, None], [16.0, 18.0]]  # as of progressive nets
    for seed in range(3):
        write_run(runs, "columns", seed, matrix)
    text = reported(tmp_path, runs / "columns")
    (row,) = cells(text["csv"], "Every metric")
    assert row["forward transfer (Lopez-Paz)"] == ""
    assert cells(text["csv"], "columns: mean of 3 runs")[0]["B"] == ""
    assert "| before training | 10.0 | - |" in text["md"]


def test_raw_scores_without_a_common_scale_are_not_averaged(runs: Path, tmp_path: Path) -> None:
    folder = three(runs, "raw", 0)
    text = reported(tmp_path, folder, normalise=lambda task, score: None)
    assert "have no common scale" in text["html"]
    assert "IQM of last scores" not in text["csv"]


def test_random_play_is_where_the_scale_has_its_zero() -> None:
    assert random_play(share)("A") == pytest.approx(10)
    assert random_play(lambda task, score: None)("A") is None


def test_a_run_under_way_is_only_in_the_curves(runs: Path, tmp_path: Path) -> None:
    folder = three(runs, "some", 0)
    write_run(runs, "some", 3, LEARNED[:2])
    text = reported(tmp_path, folder)
    assert "not finished, only in the curves: seed 3 (running)" in text["html"]
    (row,) = cells(text["csv"], "Every metric")
    assert row["runs"] == "3"


def test_a_task_visited_twice_is_shaded_twice(runs: Path, tmp_path: Path) -> None:
    matrix = [[10.0, 10.0], [20.0, 12.0], [16.0, 18.0], [21.0, 15.0]]
    path = write_run(runs, "again", 0, matrix, visits=(0, 1, 0))
    text = reported(tmp_path, path)
    panels = re.findall(r"<title>([AB])</title>.*?</svg>", text["html"], re.S)
    shades = [p.count('class="shade"') for p in re.findall(r"<svg.*?</svg>", text["html"], re.S)]
    assert panels and [n for n in shades if n] == [2, 1]
    (lost,) = cells(text["csv"], "forgetting by task")
    assert (lost["task"], lost["forgotten"]) == ("B", "3.0")


def test_pictures_are_measured_in_percent(runs: Path, tmp_path: Path) -> None:
    text = reported(
        tmp_path, three(runs, "pictures", 50, unit="accuracy"), normalise=lambda *_: None
    )
    (row,) = cells(text["csv"], "Every metric, accuracy (%)")
    assert float(row["average performance"]) == pytest.approx(68.0)
    assert "published scores" not in text["html"]


# -------------------------------------------------------------------------------- what is inside


def looks(visit: int, dormant: float) -> list[dict[str, Any]]:
    """Return two training records of a visit, with a look at plasticity."""
    values = {"plasticity/dormant/conv": dormant, "plasticity/dormant/fc": 0.0}
    values |= {"plasticity/weight_norm/conv": 3.0, "plasticity/weight_norm/fc": 4.0}
    values |= {"plasticity/effective_rank": 7.0, "method/penalty": 10.0 * visit}
    where = {"visit": visit, "task": "A", "frames": 0}
    return [where | {"global_step": visit * 100 - k, **values} for k in (50, 0)]


def test_plasticity_cost_and_a_methods_figures_are_shown(runs: Path, tmp_path: Path) -> None:
    cost = {"steps": 200, "seconds": 7200.0, "parameters": 1234, "peak_memory_mb": 99.5}
    visits = [{"visit": 1, "task": "A", "seconds": 60.0, "multiply_adds": 500}]
    metrics = [*looks(1, 0.2), *looks(2, 0.4)]
    folder = three(runs, "rich", 0, metrics=metrics, cost=cost | {"visits": visits})
    text = reported(tmp_path, folder)["csv"]
    looked = {(r["what"][:7], r["step"]): float(r["mean"]) for r in cells(text, "plasticity")}
    assert looked["dormant", "50"] == pytest.approx(0.1)  # mean of 0.2 and 0
    assert looked["norm of", "200"] == pytest.approx(5.0)  # of 3 and 4
    layers = {(r["visit"], r["layer"], r["what"]): r for r in cells(text, "By layer")}
    assert float(layers["2", "conv", "dormant"]["mean over runs"]) == pytest.approx(0.4)
    paid = cells(text, "Cost of a run")[0]
    assert (paid["hours"], paid["parameters"]) == ("2.0", "1234")
    assert cells(text, "Cost of each visit")[0]["multiply-adds an answer"] == "500"
    (recorded,) = cells(text, "What methods recorded")
    assert recorded["figure"] == "penalty"
    assert (recorded["visit 1"], recorded["visit 2"]) == ("10.0", "20.0")


def test_what_older_runs_lack_is_not_mentioned(runs: Path, tmp_path: Path) -> None:
    page = reported(tmp_path, three(runs, "old", 0))["html"]
    assert "Plasticity" not in page and "Inside" not in page and "Videos" not in page


def test_importances_are_compared_visit_by_visit(runs: Path, tmp_path: Path) -> None:
    path = write_run(runs, "ewc", 0, LEARNED)
    for visit, weight in ((1, 1.0), (2, 3.0)):
        importance = {"fc.weight": torch.tensor([[1.0, 0.0], [0.0, 3.0]])}
        save_visit(path, VisitImportance(visit, importance, {"fc.weight": torch.eye(2) * weight}))
    text = reported(tmp_path, path)["csv"]
    overlap = cells(text, "Overlap of what visits hold important")
    assert [float(row["2. B"]) for row in overlap] == pytest.approx([1, 1])
    moved = cells(text, "Squared change")  # (1 * 2^2 + 3 * 2^2) / 4
    assert [float(row["after 1. A"]) for row in moved] == pytest.approx([4.0, 4.0])


def test_videos_are_linked_from_where_the_report_lies(runs: Path, tmp_path: Path) -> None:
    path = write_run(runs, "seen", 0, LEARNED)
    (path / "videos").mkdir()
    (path / "videos" / "A #1.mp4").touch()
    (path / "videos" / ".B.tmp-7.mp4").touch()  # being written
    page = reported(path, path)["html"]
    assert 'href="videos/A%20%231.mp4"' in page and ".B.tmp" not in page
    assert "../runs/seen/seed0/videos/" in reported(tmp_path / "out", path)["html"]


# ------------------------------------------------------------------------------------ the page


class Tags(HTMLParser):
    """Collects elements, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = "<script>alert(1)<\"&'>"
ELEMENTS = {  # all that a report is made of
    *("html", "head", "meta", "title", "style", "body", "main", "nav", "section", "div", "span"),
    *("h1", "h2", "p", "b", "a", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "pre"),
    *("code", "details", "summary", "figure", "figcaption", "svg", "g", "path", "rect", "text"),
    *("circle", "polygon"),
}


def test_hostile_names_are_shown_as_text(runs: Path, tmp_path: Path) -> None:
    tasks = ("</svg><img src=x onerror=alert(1)>", "=cmd|`x` [a](b)")
    metrics = [{"visit": 1, "global_step": 1, "method/</td><script>": 1.0}]
    settings = {"method": {"name": "</pre><script>"}}
    folder = three(runs, HOSTILE, 0, tasks=tasks, metrics=metrics, settings=settings)
    text = reported(tmp_path, folder, question="<iframe src=//evil>")
    page = Tags(text["html"])
    assert page.tags <= ELEMENTS
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert HOSTILE in page.text and tasks[0] in page.text and "<iframe" in page.text
    for i, _ in enumerate(text["md"]):  # nothing in the Markdown opens an element
        if text["md"][i] == "<" and not inside_fence(text["md"], i):
            assert text["md"][i - 1] == "\\"
    assert not [c for row in csv.reader(io.StringIO(text["csv"])) for c in row if c[:1] == "="]


def inside_fence(text: str, i: int) -> bool:
    return text[:i].count("\n```") % 2 == 1


def test_a_name_that_is_no_text_does_not_stop_it(runs: Path, tmp_path: Path) -> None:
    folder = three(runs, "bad\udcff\x07", 0)
    assert "\N{REPLACEMENT CHARACTER}" in reported(tmp_path, folder)["html"]


def test_the_page_fetches_and_runs_nothing(runs: Path, tmp_path: Path) -> None:
    page = reported(tmp_path, three(runs, "calm", 0))["html"]
    assert "default-src 'none'" in " ".join(value for _, value in Tags(page).attributes)
    assert "script" not in Tags(page).tags
    links = [v for k, v in Tags(page).attributes if k in ("src", "href", "xlink:href", "action")]
    assert links and all(link.startswith("#s") for link in links)
    assert not re.search(r"https?:|url\(|@import", page)


def test_every_figure_has_its_table_and_every_chart_a_name(runs: Path, tmp_path: Path) -> None:
    page = reported(tmp_path, three(runs, "calm", 0, cost={"seconds": 60.0}))["html"]
    figures = re.findall(r"<figure>.*?</figure>", page, re.S)
    assert len(figures) == 5
    assert all("<details><summary>Table: " in figure for figure in figures)
    charts = re.findall(r'<svg [^>]*class="chart".*?</svg>', page, re.S)
    assert charts and all("viewBox=" in c and "<title>" in c for c in charts)


def test_markdown_and_csv_hold_the_same_tables_as_the_page(runs: Path, tmp_path: Path) -> None:
    text = reported(tmp_path, three(runs, "first", 0), three(runs, "second", 5))
    in_page = [
        re.findall(r"<t[dh](?: [^>]*)?>(.*?)</t[dh]>", row)
        for row in re.findall(r"<tr>(.*?)</tr>", text["html"], re.S)
    ]
    lines = [line for line in text["md"].splitlines() if line.startswith("| ")]
    in_markdown = [line[2:-2].split(" | ") for line in lines if not line.startswith("| --")]
    plain = [[re.sub(r"\\(.)", r"\1", cell) for cell in row] for row in in_markdown]
    assert in_page == [[c.replace(">", "&gt;") for c in row] for row in plain]
    n_rows = sum(len(row) == len(in_page[0]) for row in in_page)
    assert n_rows and len(cells(text["csv"])) >= n_rows


def test_the_same_files_give_the_same_bytes(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = (three(runs, "first", 0), three(runs, "second", 5))
    first = reported(tmp_path / "a", *paths)
    monkeypatch.chdir(runs)
    relative = [path.relative_to(runs) for path in paths]
    assert reported(tmp_path / "b", *relative) == first
    assert not re.search(r"20[0-9][0-9]-[0-9][0-9]", first["html"])  # no date


def test_a_gap_is_left_out_of_a_line() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, None), (3.0, 3.0)]
    drawn = LineChart("", "", "", [Line(0, points)]).svg()
    (line,) = re.findall(r'<path d="([^"]+)" fill="none" stroke="#0072B2"', drawn)
    assert [piece.count("L") for piece in line.split("M")[1:]] == [1, 0]


def test_styles_differ_in_colour_dash_and_marker() -> None:
    styles = [axes.style(i) for i in range(140)]
    assert len(set(styles)) == 140
    for a, b in pairwise(styles):
        assert all(x != y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("ends", [(0.0, 1.0), (-21.0, 20.9), (1e-7, 3e-7), (7380.0, 44630.0)])
def test_ticks_span_the_range_in_round_steps(ends: tuple[float, float]) -> None:
    places = axes.ticks(*ends)
    assert places[0] <= ends[0] and places[-1] >= ends[1] and 2 <= len(places) <= 8
    apart = {f"{b - a:.3g}" for a, b in pairwise(places)}
    assert len(apart) == 1


# ------------------------------------------------------------------------------- files, and faults


@pytest.mark.parametrize("numbers", ["-20.7", "-20.7, 19, -1e-05", "-, -3"])
def test_numbers_are_numbers_in_a_spreadsheet(numbers: str) -> None:
    assert told_in_csv(numbers) == numbers


@pytest.mark.parametrize("formula", ["-1+cmd", "-20.7-1", "-A1", "-1,A1", "=1", "+1", "@A", "-3\n"])
def test_a_formula_is_none_in_a_spreadsheet(formula: str) -> None:
    assert told_in_csv(formula) == f"'{formula}"


def told_in_csv(text: str) -> str:
    """Return what a cell with a text is in a report's CSV."""
    table = document.Table("", ("runs",), [[text]])
    report = document.Report("", [document.Section("", [table])])
    return next(csv.DictReader(io.StringIO(tidy_csv(report), newline="")))["value"]


def test_negative_scores_of_runs_are_numbers(runs: Path, tmp_path: Path) -> None:
    lost = [[score - 40.0 for score in scores] for scores in LEARNED]
    for seed in range(2):
        write_run(runs, "pong", seed, lost)
    row = cells(reported(tmp_path, runs / "pong")["csv"], "learning curves")[0]
    assert (row["mean"], row["runs"]) == ("-30.0", "-30, -30")  # 10 - 40


def test_folders_of_one_name_are_made_apart(runs: Path, tmp_path: Path) -> None:
    one, other = (write_run(runs / x, "quick", 0, LEARNED) for x in ("a", "b"))
    text = reported(tmp_path, one, other)["csv"]
    making = [r for r in cells(text) if "code" in r]
    lines = [line for row in making for line in row["code"].splitlines()]
    assert [line for line in lines if line.startswith("clrl train")] == [
        "clrl train a/quick.yaml seed=0 --runs a",
        "clrl train b/quick.yaml seed=0 --runs b",
    ]
    (alone,) = [r for r in cells(reported(tmp_path, one)["csv"]) if "clrl" in r.get("code", "")]
    assert alone["code"] == "clrl train quick.yaml seed=0"
    assert {"a/quick.yaml", "b/quick.yaml"} <= {
        r["table"] for r in csv.DictReader(io.StringIO(text))
    }


def test_a_half_written_last_line_is_skipped_and_counted(runs: Path, tmp_path: Path) -> None:
    folder = three(runs, "cut", 0, metrics=looks(1, 0.2))
    whole = cells(reported(tmp_path, folder)["csv"], "Every metric")
    lines = (folder / "seed1" / "evaluations.jsonl").read_text().splitlines()
    whole_row = lines[-1]  # its newline is missing: more may have been to come
    for name, part in (("evaluations", whole_row), ("metrics", '{"visit": 2, "glo')):
        with (folder / "seed1" / f"{name}.jsonl").open("a") as file:
            file.write(part)
    text = reported(tmp_path, folder)
    for name in ("evaluations", "metrics"):
        assert f"cut/seed1: 1 line of {name}.jsonl skipped" in text["html"]
    assert cells(text["csv"], "Every metric") == whole


def test_a_large_file_is_never_held_whole(runs: Path) -> None:
    plain = {"visit": 1, "global_step": 1, "train/loss": "0.5" * 200, "method/penalty": 0.5}
    path = write_run(runs, "large", 0, LEARNED, metrics=[plain])
    for name in ("evaluations", "metrics"):
        file = path / f"{name}.jsonl"
        file.write_text(file.read_text() * 6000)
    size = sum((path / f"{n}.jsonl").stat().st_size for n in ("evaluations", "metrics"))
    tracemalloc.start()
    run = read_run(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert run.matrix == LEARNED
    assert peak < size / 4


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"sequence": {"steps": 200}}, "sequence.steps: 100 -> 200"),
        ({"protocol": {"sticky": 0.25}}, "protocol.sticky: 0.0 -> 0.25"),
        ({"evaluation": {"episodes": 5}}, "evaluation.episodes: 2 -> 5"),
    ],
)
def test_runs_of_another_protocol_or_budget_are_refused(
    runs: Path, tmp_path: Path, settings: dict[str, Any], difference: str
) -> None:
    one = write_run(runs, "one", 0, LEARNED)
    other = write_run(runs, "other", 0, LEARNED, settings=settings)
    with pytest.raises(ClrlError, match=re.escape(difference)) as caught:
        reported(tmp_path / "out", one, other)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_runs_on_other_tasks_are_refused(runs: Path, tmp_path: Path) -> None:
    one = write_run(runs, "one", 0, LEARNED)
    other = write_run(runs, "other", 0, LEARNED, tasks=("A", "C"))
    with pytest.raises(ClrlError, match=r"\['A', 'B'\] -> \['A', 'C'\]"):
        reported(tmp_path, one, other)


def test_seeds_of_one_folder_must_be_of_one_experiment(runs: Path, tmp_path: Path) -> None:
    write_run(runs, "mixed", 0, LEARNED, settings={"method": {"strength": 1}})
    write_run(runs, "mixed", 1, LEARNED, settings={"method": {"strength": 5}})
    with pytest.raises(ClrlError, match=r"another experiment.*method\.strength: 1 -> 5"):
        reported(tmp_path, runs / "mixed")


def test_a_key_that_came_later_is_no_difference(runs: Path, tmp_path: Path) -> None:
    one = write_run(runs, "one", 0, LEARNED)
    other = write_run(runs, "other", 0, LEARNED, settings={"protocol": {"newer": 1}})
    assert reported(tmp_path, one, other) and reported(tmp_path, other, one)


def test_what_was_set_aside_is_no_run(runs: Path, tmp_path: Path) -> None:
    folder = three(runs, "one", 0)
    write_run(runs, "one", 7, LEARNED).rename(folder / "seed0.damaged-1")
    (row,) = cells(reported(tmp_path, folder)["csv"], "Every metric")
    assert row["runs"] == "3"
    (row,) = cells(reported(tmp_path, runs)["csv"], "Every metric")
    assert row["runs"] == "3"


@pytest.mark.parametrize(
    ("commits", "told"),
    [
        (("abc", "abc"), []),
        (("abc", "def"), ["at several commits: abc, def"]),
        (("abc-dirty", None), ["with changes that were not committed: abc-dirty"]),
    ],
)
def test_runs_of_several_commits_are_said(
    runs: Path, tmp_path: Path, commits: Sequence[str | None], told: list[str]
) -> None:
    for seed, commit in enumerate(commits):
        path = write_run(runs, "one", seed, LEARNED) / "environment.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": commit}))
    page = reported(tmp_path, runs / "one")["html"]
    assert [s for s in ("at several", "not committed") if s in page] == [
        s for s in ("at several", "not committed") if any(s in line for line in told)
    ]
    assert all(f"runs were made {line}" in page for line in told)
    path = runs / "one" / "seed0" / "environment.json"  # gone on with later
    resumed = {"resumed": [{"step": 1, "commit": "later"}]}
    path.write_text(json.dumps(json.loads(path.read_text()) | resumed))
    assert "later" in reported(tmp_path, runs / "one")["html"]


def test_a_run_whose_settings_were_edited_on_its_way_is_said(runs: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        path = write_run(runs, "one", seed, LEARNED) / "environment.json"
    rate = ["agent.learning_rate: 0.001 -> 0.01"]
    mere = ['tracking.project: "clrl" -> "mine"', "checkpoint.every: 100 -> 150", "name: a -> b"]
    edited = [{"step": 1500, "changed": [*mere, *rate]}, {"step": 3000, "changed": mere}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"edited": edited}))
    page = reported(tmp_path, runs / "one")["md"]
    assert page.count("with other settings") == 1
    (line,) = [line for line in page.splitlines() if "with other settings" in line]
    assert "seed1: from step 1,500 on" in line
    assert html.unescape(line).replace("\\", "").endswith(rate[0])


def test_a_score_that_was_no_number_leaves_a_gap(runs: Path, tmp_path: Path) -> None:
    during = {(1, 50, "A"): 14.0, (1, 75, "A"): 15.0}
    path = write_run(runs, "nan", 0, LEARNED, during=during)
    file = path / "evaluations.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        if row["step"] == 50:
            row["return"] = None
    rows[0]["return"] = None  # one game of two: the mean is of the other
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = read_run(path)
    assert [tuple(p) for p in run.curves["A"]] == [
        *((0, 11.0), (50, None), (75, 15.0), (100, 20.0), (200, 16.0))
    ]
    assert run.curves["A"] == run_curve(read_records(file)[0], "A")
    assert run.skipped["evaluations.jsonl"] == 0


@pytest.mark.parametrize(("earlier", "told"), [("ends", "5.0"), ("always", "")])
def test_what_is_not_asked_for_while_others_learn_is_no_gap_in_forgetting(
    runs: Path, tmp_path: Path, earlier: str, told: str
) -> None:
    during = {(1, 50, "A"): 22.0, (2, 150, "B"): 14.0}
    settings = {"evaluation": {"earlier": earlier}}
    path = write_run(runs, "ends", 0, LEARNED, during=during, settings=settings)
    (lost,) = cells(reported(tmp_path, path)["csv"], "forgetting by task")
    assert lost["F_j (CW)"] == told  # (22 + 20) / 2 - 16


def test_the_profile_is_the_share_of_last_scores_above(runs: Path, tmp_path: Path) -> None:
    text = reported(tmp_path, three(runs, "first", 0), three(runs, "second", 5))
    found = cells(text["csv"], "performance profiles")
    assert (float(found[0]["threshold"]), float(found[-1]["threshold"])) == pytest.approx(
        (0.6, 1.5)
    )
    assert (found[-1]["first"], found[-1]["second"]) == ("0.0", "0.0")
    # last scores are 0.6, 0.7, 0.8 and 0.8, 0.9, 1.0; the second's 0.5 more
    row = next(row for row in found if 0.9 < float(row["threshold"]) < 0.95)
    assert (float(row["first"]), float(row["second"])) == pytest.approx((1 / 6, 1.0))
    assert "Performance profiles" in text["html"]
    alone = write_run(runs, "alone", 0, LEARNED)
    assert "Performance profiles" not in reported(tmp_path, alone)["html"]
    raw = reported(tmp_path, runs / "first", normalise=lambda task, score: None)
    assert "Performance profiles" not in raw["html"]


def test_a_run_given_twice_counts_once(runs: Path, tmp_path: Path) -> None:
    folder = three(runs, "one", 0)
    (row,) = cells(reported(tmp_path, folder, folder / "seed1", runs)["csv"], "Every metric")
    assert row["runs"] == "3"


def test_a_folder_without_runs_an_unstarted_run_and_an_unknown_metric_are_refused(
    runs: Path, tmp_path: Path
) -> None:
    with pytest.raises(ClrlError, match="is no run") as caught:
        reported(tmp_path, runs)
    assert caught.value.exit_code == 2
    path = write_run(runs, "one", 0, LEARNED)
    with pytest.raises(ClrlError, match="--metric 'forgeting': unknown; did you mean 'forgetting'"):
        reported(tmp_path, path, metric="forgeting")
    (path / "evaluations.jsonl").write_text("")
    with pytest.raises(ClrlError, match="no evaluations yet"):
        reported(tmp_path, path)
    (path / "summary.json").write_text("{")
    with pytest.raises(ClrlError, match=r"summary\.json cannot be read"):
        reported(tmp_path, path)


def test_the_command_writes_three_files_beside_the_runs(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = three(runs, "told", 0)
    with pytest.raises(SystemExit) as caught:
        cli.main(["report", str(folder)])
    assert caught.value.code == 0
    written = capsys.readouterr().out.split()
    assert written == [str(folder / f"report.{ending}") for ending in ("html", "md", "csv")]
    assert all(Path(path).stat().st_size for path in written)


def test_forward_transfer_of_spp_is_beside_joint_training_where_there_is_some(
    tmp_path: Path,
) -> None:
    """Worked by hand, seed by seed: seed 0 of the method has no partner and does not count."""
    joined = {"method": {"name": "joint"}}
    for seed, (learned, joint) in enumerate(((10.0, None), (16.0, 20.0), (15.0, 18.0))):
        write_run(tmp_path, "ewc", seed, [[10, 10], [learned, 11], [13, 17]])
        if joint is not None:
            write_run(tmp_path, "joint", seed, [[10, 10], [19, 11], [joint, 18]], settings=joined)
    alone = reported(tmp_path / "alone", tmp_path / "ewc")
    assert "forward transfer (SPP)" not in alone["md"]
    both = reported(tmp_path / "both", tmp_path / "ewc", tmp_path / "joint")
    rows = cells(both["csv"], "Every metric, human-normalised score")
    told = {row["method"]: row["forward transfer (SPP), beside joint"] for row in rows}
    # on the common scale, task A alone: the mean of (16 - 20) / 10 and (15 - 18) / 10
    assert float(told["ewc"]) == pytest.approx(-0.35)
    assert not any(digit in told["joint"] for digit in "0123456789")
