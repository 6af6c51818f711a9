"""`clrl report`: what runs or a study say, as one HTML page, as Markdown and as CSV.

Everything is read from files, and the same files give the same bytes. A report is one structure
(`document`), made of runs by `comparison` or of a study by `transfers`, and rendered three ways
(`page`, `markdown`, `tidy`), so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clrl.errors import ClrlError
from clrl.run.folder import write_text_atomic
from clrl.study.report.comparison import compare
from clrl.study.report.document import Report
from clrl.study.report.markdown import markdown
from clrl.study.report.page import page
from clrl.study.report.scores import Normalise
from clrl.study.report.tidy import tidy_csv
from clrl.study.report.transfers import is_study, transfers

__all__ = ["RENDERERS", "write_report"]

RENDERERS = {"report.html": page, "report.md": markdown, "report.csv": tidy_csv}


def write_report(
    paths: Sequence[Path],
    *,
    normalise: Normalise,
    out: Path | None = None,
    metric: str | None = None,
    question: str | None = None,
) -> list[Path]:
    """Write `report.html`, `report.md` and `report.csv`, and return their paths.

    Args:
        paths: run folders (or folders of them), or one study.
        normalise: task and raw score to a scale on which random play has 0 and a human 1, None
            where there is none.
        out: folder to write to, made if absent; None: the one given, or where several are, the
            current one.
        metric: what the verdict is about; None: average performance, or PNN's transfer score.
        question: what was asked; None: what such runs mostly are made for.

    Raises:
        ClrlError: no runs, an empty study, an unknown metric, runs that cannot be compared, or a
            place that cannot be written.
    """
    folder = out or (paths[0] if len(paths) == 1 else Path())
    report = _made(paths, folder, normalise, metric, question)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, render in RENDERERS.items():
            write_text_atomic(folder / name, render(report))
    except OSError as error:
        raise ClrlError(f"cannot write into {folder}: {error.strerror}; choose --out", 2) from error
    return [folder / name for name in RENDERERS]


def _made(
    paths: Sequence[Path],
    out: Path,
    normalise: Normalise,
    metric: str | None,
    question: str | None,
) -> Report:
    studies = [path for path in paths if is_study(path)]
    if not studies:
        return compare(paths, out=out, normalise=normalise, metric=metric, question=question)
    if len(paths) > 1:
        raise ClrlError(f"{studies[0]} is a study: expected it alone, its runs are in it", 2)
    return transfers(studies[0], out=out, normalise=normalise, metric=metric, question=question)
