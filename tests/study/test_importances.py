"""Importances by visit: the files, and numbers against scipy and against hand-worked ones."""

from __future__ import annotations

import doctest
import errno
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import scipy.linalg
import scipy.stats
import torch
from torch import Tensor

from clrl.study import importances
from clrl.study.importances import (
    WHOLE,
    VisitImportance,
    change_maps,
    frechet_overlap,
    histogram,
    load_importances,
    overlap_matrix,
    rank_correlation,
    save_visit,
    weighted_change,
)
from clrl.types import ClrlError


def tensors(**values: object) -> dict[str, Tensor]:
    """Return `{"a.weight": ...}` from `a_weight=...`."""
    return {name.replace("_", "."): torch.tensor(v) for name, v in values.items()}


def random_importance(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"trunk.2.weight": (4, 3), "trunk.2.bias": (4,), "trunk.10.weight": (2, 4)}
    return {n: torch.randn(s, generator=generator).square() for n, s in shapes.items()}


def visit(k: int, importance: dict[str, Tensor] | None = None) -> VisitImportance:
    weight = {n: x + k for n, x in random_importance(100 + k).items()}
    return VisitImportance(k, random_importance(k) if importance is None else importance, weight)


def test_the_examples_in_the_docstrings_hold():
    result = doctest.testmod(importances)
    assert result.failed == 0 and result.attempted > 0


# ------------------------------------------------------------------------------------- the files


def test_visits_come_back_as_they_were_in_order_and_layers_in_the_nets(tmp_path: Path):
    visits = [visit(k) for k in (10, 2, 1)]
    for v in visits:
        assert save_visit(tmp_path, v) == tmp_path / f"importances/visit_{v.visit}.safetensors"
    (tmp_path / "importances/notes.txt").write_text("not a visit")
    found = load_importances(tmp_path)
    assert [v.visit for v in found] == [1, 2, 10]
    for before, after in zip(visits, reversed(found), strict=True):
        for kind in ("importance", "weight"):
            old, new = getattr(before, kind), getattr(after, kind)
            assert list(new) == list(old)  # trunk.2 before trunk.10
            assert all(torch.equal(new[n], old[n]) for n in old)


def test_a_method_without_importances_leaves_its_weights(tmp_path: Path):
    tied = torch.ones(2, 2)  # one memory under two names
    save_visit(tmp_path, VisitImportance(1, {}, {"a.weight": tied, "b.weight": tied.T}))
    (found,) = load_importances(tmp_path)
    assert found.importance == {} and list(found.weight) == ["a.weight", "b.weight"]
    with pytest.raises(ClrlError, match="estimates none"):
        frechet_overlap(found.importance, found.importance)


def test_no_importances_says_how_to_get_them(tmp_path: Path):
    with pytest.raises(ClrlError, match=r"tracking\.importances=true") as caught:
        load_importances(tmp_path)
    assert caught.value.exit_code == 2
    (tmp_path / "importances").mkdir()
    with pytest.raises(ClrlError, match=r"tracking\.importances=true"):
        load_importances(tmp_path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    path.write_bytes(safetensors.torch.save({"weight/a": torch.ones(1)}))


def unnamed(path: Path) -> None:
    path.write_bytes(safetensors.torch.save({"weight/a": torch.ones(1)}, {"order": "[]"}))


def another_kind(path: Path) -> None:
    path.write_bytes(safetensors.torch.save({"x/a": torch.ones(1)}, {"order": '["x/a"]'}))


def not_a_number(path: Path) -> None:
    x = {"importance/a": torch.tensor([float("nan")]), "weight/a": torch.ones(1)}
    order = {"order": '["importance/a", "weight/a"]'}
    path.write_bytes(safetensors.torch.save(x, order))


@pytest.mark.parametrize(
    "damage", [cut, noise, empty, foreign, unnamed, another_kind, not_a_number]
)
def test_a_damaged_file_is_named(tmp_path: Path, damage):
    save_visit(tmp_path, visit(1))
    path = save_visit(tmp_path, visit(2))
    damage(path)
    with pytest.raises(ClrlError, match=r"visit_2\.safetensors is damaged") as caught:
        load_importances(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_the_older_file_and_no_rubbish(tmp_path: Path, monkeypatch):
    path = save_visit(tmp_path, visit(1))
    before = path.read_bytes()

    def full(path: Path, data: bytes) -> None:
        path.write_bytes(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(importances, "write_durable", full)
    with pytest.raises(ClrlError, match="No space left"):
        save_visit(tmp_path, VisitImportance(1, {}, {"a": torch.ones(1)}))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("importance", "why"),
    [
        ({"b": torch.ones(2)}, "no weight"),
        ({"a": torch.ones(3)}, r"\(3,\) and \(2,\)"),
        ({"a": torch.tensor([1.0, -1e-9])}, "negative"),
        ({"a": torch.tensor([1.0, float("inf")])}, "not finite"),
    ],
)
def test_an_importance_must_fit_its_weight_and_be_one(importance, why):
    with pytest.raises(ValueError, match=why):
        VisitImportance(1, importance, {"a": torch.ones(2)})


# --------------------------------------------------------------------------------- the histogram


def test_histogram_counts_shares_of_all_weights_up_to_the_largest():
    h = histogram(tensors(a_weight=[[0.0, 1.0]], a_bias=[2.0, 4.0, 4.0]), bins=4)
    assert h.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    # 0 | 1/4 | 2/4 | 1, 1: a value on an edge belongs to the bin above, the largest to the last
    assert h.share.tolist() == [0.2, 0.2, 0.2, 0.4]


@pytest.mark.parametrize("importance", [{}, {"a": torch.zeros(3)}])
def test_no_importance_has_no_histogram(importance):
    with pytest.raises(ClrlError, match="nothing to make"):
        histogram(importance)


# ----------------------------------------------------------------------------------- the overlap


def test_overlap_equals_the_definition_with_matrix_roots():
    a, b = random_importance(1), random_importance(2)
    groups = {
        "trunk.2": ["trunk.2.weight", "trunk.2.bias"],
        "trunk.10": ["trunk.10.weight"],
        WHOLE: list(a),
    }
    found = frechet_overlap(a, b)
    assert list(found) == list(groups)
    for layer, names in groups.items():
        roots = []
        for f in (a, b):
            full = np.diag(np.concatenate([f[n].double().numpy().ravel() for n in names]))
            roots.append(scipy.linalg.sqrtm(full / np.trace(full)))
        d2 = 0.5 * np.linalg.norm(roots[0] - roots[1], "fro") ** 2
        assert found[layer] == pytest.approx(1 - d2, abs=1e-12)
        assert 0.1 < 1 - d2 < 0.95  # an example that tells


def test_overlap_is_one_of_the_same_at_any_scale_and_zero_of_the_disjoint():
    a = tensors(a_weight=[1.0, 3.0, 0.0, 0.0])
    assert frechet_overlap(a, {"a.weight": 7 * a["a.weight"]})["a"] == pytest.approx(1, abs=1e-12)
    b = tensors(a_weight=[0.0, 0.0, 0.1, 0.2])
    assert frechet_overlap(a, b)["a"] == pytest.approx(0, abs=1e-12)
    c = tensors(a_weight=[0.0] * 4)
    assert frechet_overlap(a, c) == {"a": None, WHOLE: None}


def test_overlap_takes_weight_and_bias_together():
    a = tensors(a_weight=[[1.0, 0.0]], a_bias=[3.0])
    b = tensors(a_weight=[[1.0, 0.0]], a_bias=[0.0])
    assert frechet_overlap(a, b)["a"] == pytest.approx(0.5)  # sqrt(1/4 * 1): each has unit trace


def test_overlap_of_different_parameters_is_refused():
    a = tensors(a_weight=[1.0, 2.0])
    for b in (tensors(a_weight=[1.0]), tensors(b_weight=[1.0, 2.0])):
        with pytest.raises(ClrlError, match=r"a\.weight is \(2,\) on one side"):
            frechet_overlap(a, b)


def test_the_matrix_holds_the_overlap_of_every_pair():
    visits = [visit(k) for k in (1, 2, 3)]
    for layer in ("trunk.10", WHOLE):
        expected = [
            [frechet_overlap(a.importance, b.importance)[layer] for b in visits] for a in visits
        ]
        assert overlap_matrix(visits, layer) == expected
        assert [expected[i][i] for i in range(3)] == [1.0, 1.0, 1.0]
    with pytest.raises(ClrlError, match=r"layer is 'trunk': expected one of trunk\.2") as caught:
        overlap_matrix(visits, "trunk")
    assert caught.value.exit_code == 2
    with pytest.raises(ClrlError, match="estimates none"):
        overlap_matrix([visit(1), visit(2, {})])
    with pytest.raises(ClrlError, match="no visits"):
        overlap_matrix([])


# ------------------------------------------------------------------------------------ the change


def test_weighted_change_is_a_mean_weighted_by_importance():
    before = tensors(a_weight=[1.0, 1.0], a_bias=[0.0], b_weight=[5.0], c_weight=[0.0])
    after = tensors(a_weight=[3.0, 0.0], a_bias=[9.0], b_weight=[4.0], c_weight=[1.0])
    importance = tensors(a_weight=[1.0, 3.0], a_bias=[0.0], b_weight=[2.0])
    expected = {"a": (4 + 3) / 4, "b": 1.0, WHOLE: (4 + 3 + 2) / 6}
    assert weighted_change(before, after, importance) == pytest.approx(expected)
    scaled = {name: 1e-6 * x for name, x in importance.items()}
    assert weighted_change(before, after, scaled) == pytest.approx(expected)


def test_weighted_change_is_undefined_without_importance():
    w, zero = tensors(a_weight=[1.0], b_weight=[1.0]), tensors(a_weight=[0.0], b_weight=[1.0])
    assert weighted_change(w, w, zero) == {"a": None, "b": 0.0, WHOLE: 0.0}
    with pytest.raises(ClrlError, match=r"b\.weight is \(1,\) on one side and absent"):
        weighted_change(w, tensors(a_weight=[1.0]), zero)


def test_change_maps_are_matrices_with_their_rank_correlation():
    generator = torch.Generator().manual_seed(0)
    before, after = (torch.randn(5, 2, 3, 3, generator=generator) for _ in range(2))
    omega = torch.rand(5, 2, 3, 3, generator=generator)
    maps = change_maps({"c": before}, {"c": after}, {"c": omega}, "c")
    assert maps.change.shape == maps.importance.shape == (5, 18)
    np.testing.assert_array_equal(maps.importance[3], omega[3].flatten())
    np.testing.assert_allclose(maps.change[3], (after - before)[3].flatten().abs(), rtol=1e-6)
    expected = scipy.stats.spearmanr((after - before).abs().flatten(), omega.flatten())
    assert maps.correlation == pytest.approx(expected.statistic)
    with pytest.raises(ClrlError, match="parameter is 'd': expected one of c") as caught:
        change_maps({"c": before}, {"c": after}, {"c": omega}, "d")
    assert caught.value.exit_code == 2


def test_rank_correlation_equals_scipys_with_ties():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, 200)
    y = x + rng.integers(0, 9, 200)
    expected = float(scipy.stats.spearmanr(x, y).statistic)
    assert 0.2 < expected < 0.8
    assert rank_correlation(x, y) == pytest.approx(expected, abs=1e-12)
    assert rank_correlation(x, -x) == pytest.approx(-1, abs=1e-12)
    assert rank_correlation(x, np.ones(200)) is None
