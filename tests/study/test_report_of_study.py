"""The report of a transfer study: its numbers are those of `study.json`, its curves of the runs."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from clrl.study.report import write_report
from clrl.study.report.axes import LETTER, WIDTH
from clrl.study.seal import SEAL, hashes
from clrl.types import ClrlError

STEPS = 100  # of a visit


def write_run(path: Path, tasks: list[str], scores: list[float], **protocol: Any) -> None:
    """Write a run over tasks, whose last one is played at 0, 50 and 100 steps of its visit."""
    path.mkdir(parents=True)
    before = (len(tasks) - 1) * STEPS
    moments = [
        (len(tasks) - 1, "end" if before else "start", before),
        (len(tasks), "during", before + 50),
        (len(tasks), "end", before + 100),
    ]
    if before:
        moments, scores = [(0, "start", 0), *moments], [1.0, *scores]
    rows = [
        {"visit": visit, "phase": phase, "step": step, "task_evaluated": tasks[-1], "return": score}
        for (visit, phase, step), score in zip(moments, scores, strict=True)
    ]
    (path / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"seed": 0, "sequence": {"steps": STEPS}, "protocol": {"sticky": 0.0} | protocol}
    config["evaluation"] = {"episodes": 2}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    summary = {"tasks": tasks, "visits": list(range(len(tasks))), "cost": {"seconds": 3600.0}}
    (path / "summary.json").write_text(json.dumps(summary))


def write_study(runs: Path, method: str = "ewc", **protocol: Any) -> Path:
    """Write a study of one pair, A to B, with one method and one seed."""
    write_run(runs / "experts" / "B-1" / "seed0", ["B"], [0.0, 4.0, 8.0])
    write_run(
        runs / "study" / "runs" / "ewc-A-B" / "seed0", ["A", "B"], [2.0, 8.0, 8.0], **protocol
    )
    metrics = {
        "transfer_score": {"title": "PNN's transfer score", "higher_is_better": True},
        "time_to_threshold": {"title": "steps to the criterion", "higher_is_better": False},
        "source_forgetting": {"title": "forgetting of the sources", "higher_is_better": False},
    }
    values = {"transfer_score": 162.5, "time_to_threshold": 50, "source_forgetting": None}
    result = {
        "study": {"name": "study", "criterion": 0.5, "resamples": 7, "bootstrap_seed": 3},
        "sources": ["A"],
        "targets": ["B"],
        "methods": [method],
        "seeds": [0],
        "metrics": metrics,
        "experts": {"B": {"folders": {"0": "experts/B-1/seed0"}}},
        "runs": [
            {
                "method": method,
                "sources": ["A"],
                "target": "B",
                "seed": 0,
                "folder": "study/runs/ewc-A-B/seed0",
                "metrics": values,
            }
        ],
        "matrix": {
            name: {method: {"A": {"B": {"values": [v], "mean": v, "low": None, "high": None}}}}
            for name, v in values.items()
        },
        "summary": {
            "transfer_score": {
                method: {"pairs": 1, "of": 1, "mean": {"value": 162.5, "low": None, "high": None}}
            },
            "reference_transfer": {method: 0.25},
        },
        "warnings": ["1 seed: fewer than 3, so no intervals"],
    }
    (runs / "study" / "study.json").write_text(json.dumps(result))
    (runs / "study" / "study.yaml").write_text("name: study\n")
    return runs / "study"


def reported(*paths: Path, **options: Any) -> dict[str, str]:
    """Return the three files of a report by their ending."""
    written = write_report(paths, normalise=lambda task, score: None, **options)
    return {path.suffix[1:]: path.read_text() for path in written}


def rows(text: str, table: str) -> list[dict[str, str]]:
    """Return the rows of a table in a report's CSV."""
    found: dict[str, dict[str, str]] = {}
    for cell in csv.DictReader(io.StringIO(text)):
        if cell["table"] == table:
            found.setdefault(cell["row"], {})[cell["column"]] = cell["value"]
    return list(found.values())


def test_the_matrix_is_that_of_the_study(runs: Path) -> None:
    text = reported(write_study(runs))
    (row,) = rows(text["csv"], "PNN's transfer score")
    assert row == {"method": "ewc", "source": "A", "to B": "162.5"}
    assert "over all pairs: ewc 162.5." in text["html"]
    assert "1 seed: fewer than 3, so no intervals" in text["html"]
    assert "7 resamples" in text["md"] and "seed 3" in text["md"]
    (best,) = [r for r in rows(text["csv"], "All pairs together") if r["method"] == "ewc"]
    assert (best["pairs"], best["mean"]) == ("1/1", "162.5")
    assert rows(text["csv"], "Every run")[0]["folder"] == "study/runs/ewc-A-B/seed0"


def test_curves_are_of_the_visit_beside_the_experts(runs: Path) -> None:
    text = reported(write_study(runs))
    curve = {(r["method"], r["step"]): r["mean"] for r in rows(text["csv"], "learning curves")}
    assert curve == {
        ("expert (from scratch)", "0"): "0.0",
        ("expert (from scratch)", "50"): "4.0",
        ("expert (from scratch)", "100"): "8.0",
        ("ewc", "0"): "2.0",
        ("ewc", "50"): "8.0",
        ("ewc", "100"): "8.0",
    }
    paid = {r["method"]: r["hours"] for r in rows(text["csv"], "Cost of a run, mean")}
    assert paid == {"expert (from scratch)": "1.0", "ewc": "1.0"}
    (beside,) = rows(text["csv"], "score beside cost")
    assert (beside["hours"], beside["PNN's transfer score"]) == ("1.0", "162.5")


def with_controls(runs: Path, copies: int) -> Path:
    """Write a study whose target is also a source, with so many controls of its one seed."""
    study = write_study(runs)
    result = json.loads((study / "study.json").read_text())
    folders = [f"study/runs/ewc-B-A{k}/seed0" for k in range(copies)]
    for k, folder in enumerate(folders):
        write_run(runs / folder, ["B", "A"], [1.0, 2.0, 3.0])
        control = [("start", 0, 0, 0.0), ("during", 1, 50, 6.0 + k), ("end", 1, 100, 7.0)]
        with (runs / folder / "evaluations.jsonl").open("a") as file:
            for phase, visit, step, score in control:
                where = {"visit": visit, "phase": phase, "step": step, "task_evaluated": "B"}
                file.write(json.dumps(where | {"return": score}) + "\n")
        other = {"sources": ["B"], "target": "A", "folder": folder}
        result["runs"].append(result["runs"][0] | other)
    result |= {"sources": ["A", "B"], "targets": ["B", "A"]}
    result["methods_alone"] = {"B": {"ewc": {"folders": {"0": folders}}}}
    (study / "study.json").write_text(json.dumps(result))
    return study


def test_a_methods_own_control_is_drawn_too_but_beside_a_source_alone(runs: Path) -> None:
    found = rows(reported(with_controls(runs, 1))["csv"], "learning curves")
    own = {r["step"]: r["mean"] for r in found if r["method"] == "ewc (from scratch)"}
    assert own == {"0": "0.0", "50": "6.0", "100": "7.0"}
    assert {r["pair"] for r in found if r["method"] == "ewc (from scratch)"} == {"A → B"}
    assert {r["pair"] for r in found} == {"A → B", "B → A"}  # no task is its own source


def test_many_controls_of_few_seeds_make_no_interval(runs: Path) -> None:
    found = rows(reported(with_controls(runs, 4))["csv"], "learning curves")
    own = [r for r in found if r["method"] == "ewc (from scratch)"]
    assert [r["mean"] for r in own] == ["0.0", "7.5", "7.0"]
    assert not any("mean low" in r for r in own)


def test_labels_of_axes_fit_their_chart_however_long_a_metrics_title_is(runs: Path) -> None:
    study = write_study(runs)
    result = json.loads((study / "study.json").read_text())
    title = "PNN's transfer score (% of the expert's area), over fine-tuning alone"
    result["metrics"]["transfer_score"]["title"] = title
    (study / "study.json").write_text(json.dumps(result))
    page = reported(study)["html"]
    texts = [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", page)]
    short = [text for text in texts if text.startswith("PNN's transfer")]
    assert len(short) == 2  # below the dots, and beside the cost
    assert all(len(text) * LETTER < WIDTH and text.endswith("alone") for text in short)
    assert html.escape(title) in page or title in page


def test_runs_that_are_too_small_are_called_so(runs: Path) -> None:
    text = reported(write_study(runs))
    told = [
        c["value"] for c in csv.DictReader(io.StringIO(text["csv"])) if c["column"] == "caution"
    ]
    assert any("100 agent steps a visit; published scores are mostly at" in line for line in told)
    assert "every score is a mean over only 2 full games" in told


def test_a_cell_is_what_the_study_says_and_need_not_be_a_mean(runs: Path) -> None:
    study = write_study(runs)
    result = json.loads((study / "study.json").read_text())
    ratio = {"values": [50.0, 150.0], "mean": 140.0, "low": 120.0, "high": 145.0}
    result["matrix"]["transfer_score"]["ewc"]["A"]["B"] = ratio
    assert "ratio of means" not in reported(study)["html"]  # a study from before there were any
    result["metrics"]["transfer_score"]["is_ratio"] = True
    (study / "study.json").write_text(json.dumps(result))
    text = reported(study)
    (row,) = rows(text["csv"], "PNN's transfer score")
    assert [row[f"to B{end}"] for end in ("", " low", " high")] == ["140.0", "120.0", "145.0"]
    assert "is a ratio of means" in text["html"]
    assert "the mean over seeds" not in text["html"] and "their mean" not in text["html"]


def test_a_study_without_its_run_folders_still_has_its_numbers(runs: Path) -> None:
    study = write_study(runs)
    (runs / "experts").rename(runs / "gone")
    (study / "runs").rename(study / "gone")
    text = reported(study)
    assert "2 run folders are not where the study says" in text["html"]
    assert rows(text["csv"], "PNN's transfer score")


def remember(study: Path, task: str = "A") -> Path:
    """Have the run of the study also tell of its source, a figure of its method, and a video."""
    run = study / "runs" / "ewc-A-B" / "seed0"
    with (run / "evaluations.jsonl").open("a") as file:
        for visit, phase, score in ((0, "start", 1.0), (1, "end", 9.0), (2, "end", 4.0)):
            where = {"visit": visit, "phase": phase, "step": visit * STEPS}
            file.write(json.dumps(where | {"task_evaluated": task, "return": score}) + "\n")
    record = {"visit": 2, "global_step": 200, "method/penalty": 0.5}
    (run / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    for path in (run, study.parent / "experts" / "B-1" / "seed0"):
        (path / "videos").mkdir()
        (path / "videos" / "B.mp4").touch()
    return study


def test_the_runs_have_all_that_a_comparison_has_folded_by_pair(runs: Path) -> None:
    text = reported(remember(write_study(runs)))
    before, _, last = rows(text["csv"], "A → B: ewc: mean of 1 run")
    assert before == {"after visit": "before training", "A": "1.0", "B": "1.0"}
    assert last == {"after visit": "2. B", "A": "4.0", "B": "8.0"}
    (lost,) = rows(text["csv"], "A → B: forgetting by task")
    assert (lost["method"], lost["task"], lost["forgotten"]) == ("ewc", "A", "5.0")
    noted = rows(text["csv"], "A → B: What methods recorded, last in each visit, mean over runs")
    assert [(r["figure"], r["visit 2"]) for r in noted] == [("penalty", "0.5")]
    titles = re.findall(r"<h2[^>]*>([^<]*)</h2>", text["html"])
    assert titles.count("Score matrix") == titles.count("Forgetting") == titles.count("Inside") == 1
    assert text["html"].count("<details><summary>A → B</summary>") == 4  # and with videos
    assert 'href="runs/ewc-A-B/seed0/videos/B.mp4"' in text["html"]
    assert 'href="../experts/B-1/seed0/videos/B.mp4"' in text["html"]
    assert "### A → B" in text["md"]


def test_only_methods_with_runs_of_a_pair_are_in_its_fold(runs: Path) -> None:
    study = remember(write_study(runs))
    result = json.loads((study / "study.json").read_text())
    folder = "study/runs/weak-B-A/seed0"
    write_run(runs / folder, ["B", "A"], [1.0, 2.0, 3.0])
    other = {"method": "weak", "sources": ["B"], "target": "A", "folder": folder}
    result["runs"].append(result["runs"][0] | other)
    result |= {"sources": ["A", "B"], "targets": ["B", "A"], "methods": ["ewc", "weak"]}
    (study / "study.json").write_text(json.dumps(result))
    page = reported(study)["html"]
    found = re.findall(r"<details><summary>([AB]) → ([AB])</summary>", page)
    assert {*found} == {("A", "B"), ("B", "A")}
    text = reported(study)["csv"]
    assert rows(text, "A → B: ewc: mean of 1 run") and rows(text, "B → A: weak: mean of 1 run")
    assert not rows(text, "A → B: weak: mean of 1 run")


class Page(HTMLParser):
    """Collects elements and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


HOSTILE = "</svg><script src=https://evil.example/x></script><img src=x onerror=alert(1)>"


def test_nothing_is_asked_of_a_network_whatever_names_say(runs: Path) -> None:
    study = remember(write_study(runs, HOSTILE))
    text = (study / "study.json").read_text()
    escaped = json.dumps(HOSTILE)
    result = json.loads(text.replace('"A"', escaped))
    result["warnings"] = [HOSTILE]
    result["study"]["name"] = HOSTILE
    (study / "study.json").write_text(json.dumps(result))
    (study / "study.yaml").write_text(HOSTILE)
    run = study / "runs" / "ewc-A-B" / "seed0"
    for name in ("evaluations.jsonl", "summary.json"):
        (run / name).write_text((run / name).read_text().replace('"A"', escaped))
    (run / "videos" / "B.mp4").rename(run / "videos" / "javascript:alert(1)<b>.mp4")
    page = reported(study, question=HOSTILE)["html"]
    parsed = Page(page)
    assert page.count("&lt;img src=x") > 10  # names are there, as text
    assert not parsed.tags & {"script", "img", "iframe", "link", "object", "base"}
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]
    links = [v for k, v in parsed.attributes if k in ("src", "href", "xlink:href", "action")]
    assert links
    assert all(re.fullmatch(r"#s[0-9]+|(\.\./experts|runs)/[\w./%-]+\.mp4", x) for x in links), (
        links
    )
    assert "url(" not in page
    assert "@import" not in page
    assert any(v.startswith("default-src 'none'") for k, v in parsed.attributes if k == "content")


def test_a_hostile_method_is_shown_as_text(runs: Path) -> None:
    page = reported(write_study(runs, "<script>alert(1)</script>"))["html"]
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_report_lies_in_the_study_and_is_the_same_each_time(runs: Path) -> None:
    study = write_study(runs)
    assert reported(study) == reported(study)
    assert {p.name for p in study.glob("report.*")} == {"report.html", "report.md", "report.csv"}


def test_a_report_need_not_wait_for_torch_nor_hold_it_in_memory(
    runs: Path, report_without_torch: Callable[[Path], None]
) -> None:
    study = write_study(runs)
    report_without_torch(study)
    assert (study / "report.html").exists()


def test_an_expert_that_was_changed_after_it_was_sealed_is_told(runs: Path) -> None:
    study, expert = write_study(runs), runs / "experts" / "B-1" / "seed0"
    (expert / SEAL).write_text(json.dumps({"sha256": hashes(expert)}))
    assert "sealed" not in reported(study)["md"]
    rows = (expert / "evaluations.jsonl").read_text()
    (expert / "evaluations.jsonl").write_text(rows.replace("8.0", "9.0"))
    assert "an expert: evaluations.jsonl is not what was sealed" in reported(study)["md"]


def test_comparisons_of_an_older_study_are_left_out_and_it_is_said(runs: Path) -> None:
    study = write_study(runs)
    result = json.loads((study / "study.json").read_text())
    apart = {"value": 7.77, "low": None, "high": None}
    versus = {"ewc": {"difference": apart, "probability_of_improvement": apart}}
    result["summary"]["transfer_score"]["ewc"]["versus"] = versus
    for schema, shown in ((None, False), (2, True)):
        (study / "study.json").write_text(json.dumps(result | {"schema": schema or 1}))
        text = reported(study)["md"]
        assert ("7.77" in text) == shown
        assert ("study.json is of an older clrl" in text) != shown


def test_what_each_visit_cost_is_told(runs: Path) -> None:
    study = write_study(runs)
    path = runs / "study" / "runs" / "ewc-A-B" / "seed0" / "summary.json"
    visits = [{"task": task, "visit": k, "parameters": 100 * k} for k, task in ((1, "A"), (2, "B"))]
    summary = json.loads(path.read_text())
    path.write_text(json.dumps(summary | {"cost": summary["cost"] | {"visits": visits}}))
    told = rows(reported(study)["csv"], "Cost of each visit, mean over runs")
    assert [(r["method"], r["visit"], r["parameters"]) for r in told] == [
        ("ewc", "1.", "100"),
        ("ewc", "2.", "200"),
    ]


def test_faults_are_named(runs: Path) -> None:
    study = write_study(runs)
    with pytest.raises(ClrlError, match="--metric 'tranfer_score': unknown; did you mean"):
        reported(study, metric="tranfer_score")
    with pytest.raises(ClrlError, match="is a study: expected it alone"):
        reported(study, runs / "experts" / "B-1" / "seed0")
    result = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps(result | {"runs": []}))
    with pytest.raises(ClrlError, match="is an empty study"):
        reported(study)
    for other in ("[]", "{", '{"runs": [1]}'):
        (study / "study.json").write_text(other)
        with pytest.raises(ClrlError, match=r"study\.json cannot be used"):
            reported(study)
    (study / "study.json").unlink()
    with pytest.raises(ClrlError, match="not finished; go on with clrl transfer") as caught:
        reported(study)
    assert caught.value.exit_code == 2


def test_runs_of_another_protocol_than_the_rest_are_refused(runs: Path) -> None:
    study = write_study(runs, sticky=0.25)
    with pytest.raises(ClrlError, match=r"protocol\.sticky: 0\.0 -> 0\.25"):
        reported(study)
