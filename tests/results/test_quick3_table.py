"""The script that compares methods on quick3."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats


@pytest.mark.parametrize(
    ("found", "n", "stands"),
    [
        ([0.5, 0.6, 0.4, 0.55, 0.5, 0.45], 29, True),
        ([0.5, 0.6, -0.1, 0.4, 0.5, 0.45], 1, True),
        ([0.5, 0.6, -0.1, 0.4, 0.5, 0.45], 29, False),
        ([-0.5, -0.6, 0.1, -0.4, -0.5, -0.45], 1, True),
        ([0.5, -0.6, 0.1, -0.4, 0.5, -0.45], 1, False),
    ],
)
def test_a_star_is_bonferronis_t_test(load_script, found, n, stands):
    script = load_script("quick3/table.py")
    test = stats.ttest_1samp(found, 0.0)
    assert (test.pvalue < 0.05 / n) is np.bool_(stands)
    low, high = test.confidence_interval(0.95)
    star = " *" if stands else ""
    expected = f"{np.mean(found):.2f} ({low:.2f} to {high:.2f}){star}"
    assert script.difference(found, n) == expected


def test_methods_that_lose_nothing_are_no_question_among_those_corrected_for(load_script):
    script = load_script("quick3/table.py")

    def runs(label: str, performance: list[float], forgotten: list[float]) -> list:
        each = enumerate(zip(performance, forgotten, strict=True))
        return [
            (label, seed, {"normalised": {"metrics": {"average_performance": p, "forgetting": f}}})
            for seed, (p, f) in each
        ]

    groups = {
        "a": runs("one", [0.1, 0.2, 0.3, 0.2], [0.0] * 4),
        "b": runs("other", [0.2, 0.45, 0.38, 0.4], [0.0] * 4),
        "c": runs("two seeds", [0.2, 0.3], [0.1, 0.2]),
    }
    gains = [0.1, 0.25, 0.08, 0.2]
    assert 0.05 / 2 < stats.ttest_1samp(gains, 0.0).pvalue < 0.05  # a star among one, not among two
    assert script.differences(groups).splitlines()[2:] == [
        "| other less one | 4 | 0.16 (0.03 to 0.29) * | 0.00 (0.00 to 0.00) |"
    ]
