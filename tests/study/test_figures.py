"""Figures show the numbers given to them, by name, and are the same file every time."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from clrl.study.figures import (
    change_figure,
    change_maps_figure,
    histogram_figure,
    overlap_figure,
    overlap_matrix_figure,
    save,
)
from clrl.study.importances import WHOLE, ChangeMaps, Histogram
from clrl.types import ClrlError

EDGES = np.array([0.0, 0.5, 1.0])
HISTOGRAMS = {
    "EWC": Histogram(EDGES, np.array([1.0, 0.0])),
    "SPP": Histogram(EDGES, np.array([0.75, 0.25])),
}
OVERLAPS = {
    "EWC": {"trunk.0": 0.4, "trunk.2": 0.6, "trunk.4": 0.81, WHOLE: 0.6},
    "SPP": {"trunk.0": 0.5, "trunk.2": 0.7, "trunk.4": 0.82, WHOLE: 0.7},
    "fine-tuning": {"trunk.0": 0.3, "trunk.2": None, "trunk.4": 0.80, WHOLE: 0.5},
}


def test_histograms_stand_side_by_side_on_the_same_axes(tmp_path: Path):
    with pytest.raises(ValueError, match="no histograms"):
        histogram_figure({})
    figure = histogram_figure(HISTOGRAMS)
    assert [axes.get_title() for axes in figure.axes] == ["EWC", "SPP"]
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}
    for axes, h in zip(figure.axes, HISTOGRAMS.values(), strict=True):
        drawn = axes.patches[0].get_data()
        assert drawn.values.tolist() == h.share.tolist()
        assert drawn.edges.tolist() == h.edges.tolist()
    save(figure, tmp_path / "h.png")


def test_a_line_a_method_over_the_layers_with_gaps_and_a_name_at_its_end(tmp_path: Path):
    figure = overlap_figure(OVERLAPS)
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_xticklabels()] == ["trunk.0", "trunk.2", "trunk.4"]
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in axes.lines}
    np.testing.assert_array_equal(lines["fine-tuning"], [0.3, np.nan, 0.8])
    np.testing.assert_array_equal(lines["SPP"], [0.5, 0.7, 0.82])
    looks = {(line.get_color(), line.get_marker()) for line in axes.lines}
    assert len(looks) == len(OVERLAPS)
    names = sorted(axes.texts, key=lambda t: t.xy[1])
    assert [t.get_text() for t in names] == ["fine-tuning", "EWC", "SPP"]  # as the lines end
    colors = {line.get_label(): line.get_color() for line in axes.lines}
    assert all(t.get_color() == colors[t.get_text()] for t in names)
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in names]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
    save(figure, tmp_path / "o.svg")


def test_changes_that_are_zero_or_undefined_are_drawn_without_complaint(tmp_path: Path):
    changes = {
        "frozen": {"a": 0.0, "b": 0.0, WHOLE: 0.0},
        "none": {"a": None, "b": None, WHOLE: None},
        "SPP": {"a": 1e-6, "b": 1e-3, WHOLE: 1e-4},
    }
    moved = {"SPP": changes["SPP"]}
    assert change_figure(moved).axes[0].get_yscale() == "log"
    (axes,) = change_figure(changes).axes
    heights = axes.transData.transform([(0, 0.0), (0, 1e-6), (0, 1e-5), (0, 1e-4)])[:, 1]
    assert np.all(np.diff(heights) > 1)  # 0 has a place on it, a decade below the least
    assert [t.get_text() for t in axes.texts] == ["frozen", "SPP"]
    for some in (changes, {"frozen": changes["frozen"]}, {"none": changes["none"]}):
        save(change_figure(some), tmp_path / "c.png")


def test_a_matrix_is_written_out(tmp_path: Path):
    matrices = {"EWC": [[1.0, 0.25], [0.25, 1.0]], "SPP": [[1.0, None], [None, 1.0]]}
    figure = overlap_matrix_figure(matrices, ["A", "B"])
    texts = [[t.get_text() for t in axes.texts] for axes in figure.axes[:2]]
    assert texts == [["1.00", "0.25", "0.25", "1.00"], ["1.00", "-", "-", "1.00"]]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["EWC", "SPP"]
    save(figure, tmp_path / "m.png")


def test_both_maps_have_the_most_important_rows_and_columns_first(tmp_path: Path):
    importance = np.array([[0.0, 1.0, 0.0], [2.0, 9.0, 0.5]])
    change = np.arange(6.0).reshape(2, 3)
    figure = change_maps_figure(ChangeMaps("fc.weight", change, importance, -0.5))
    shown = [axes.images[0].get_array().tolist() for axes in figure.axes[:2]]
    assert shown == [[[4, 3, 5], [1, 0, 2]], [[9, 2, 0.5], [1, 0, 0]]]
    assert figure.get_suptitle() == "fc.weight: rank correlation -0.50"
    save(figure, tmp_path / "m.png")
    still = ChangeMaps("fc.weight", 0 * change, importance, None)
    assert change_maps_figure(still).get_suptitle() == "fc.weight: rank correlation undefined"
    save(change_maps_figure(still), tmp_path / "m.png")


def test_colours_of_a_map_end_where_most_of_it_does():
    importance = np.arange(101.0).reshape(1, 101)  # its 99th percentile is 99
    change = np.where(importance == 7, 5.0, 0.0)  # and this one's is 0
    figure = change_maps_figure(ChangeMaps("fc.weight", change, importance, None))
    assert [axes.images[0].get_clim() for axes in figure.axes[:2]] == [(0, 5), (0, 99)]


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_same_figure_gives_the_same_bytes(tmp_path: Path, ending: str):
    paths = [tmp_path / f"{i}.{ending}" for i in range(3)]
    for path in paths[:2]:
        save(overlap_figure(OVERLAPS), path)
    with mpl.rc_context({"svg.hashsalt": "the user's"}):
        save(overlap_figure(OVERLAPS), paths[2])
        assert mpl.rcParams["svg.hashsalt"] == "the user's"
    assert len({path.read_bytes() for path in paths}) == 1
    assert b"<dc:date>" not in paths[0].read_bytes()


def test_another_ending_is_refused(tmp_path: Path):
    with pytest.raises(ClrlError, match=r"expected a name in \.svg or \.png") as caught:
        save(overlap_figure(OVERLAPS), tmp_path / "o.jpg")
    assert caught.value.exit_code == 2
    with pytest.raises(ClrlError, match="cannot write"):
        save(overlap_figure(OVERLAPS), tmp_path / "absent" / "o.svg")


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ClrlError, match="pip install matplotlib"):
        overlap_figure(OVERLAPS)


def test_matplotlib_is_imported_to_draw_only_and_pyplot_never():
    code = (
        "import sys, clrl.study.figures as f\n"
        "assert 'matplotlib' not in sys.modules\n"
        "f.overlap_figure({'EWC': {'a': 0.5}})\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
