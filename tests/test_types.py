"""Batches: indexing selects the same samples from every field."""

from __future__ import annotations

import pytest
import torch

from clrl.types import Batch


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("index", [torch.tensor([3, 0, 3]), slice(1, 4), torch.arange(6) > 2])
def test_a_selection_is_of_the_same_samples_in_the_same_layout(
    index: object, layout: torch.memory_format
) -> None:
    x = torch.arange(6 * 2 * 5 * 5, dtype=torch.uint8).view(6, 2, 5, 5)
    batch = Batch(x.contiguous(memory_format=layout), torch.arange(6), torch.arange(6) / 6)
    selected = batch[index]
    assert torch.equal(selected.x, x[index])  # type: ignore[index]
    assert selected.x.is_contiguous(memory_format=layout)
    assert torch.equal(selected.route, torch.arange(6)[index])  # type: ignore[index]
    assert torch.equal(selected.score * 6, selected.route.float())
