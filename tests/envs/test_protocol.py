"""Presets are those of the papers, and a config may change any field of one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from clrl.envs.protocol import PRESETS, AtariProtocol

CONFIG = TypeAdapter(AtariProtocol)


def test_presets_are_those_of_the_papers() -> None:
    classic, machado = AtariProtocol(), AtariProtocol("machado")
    for protocol in (classic, machado):
        shape = (protocol.frame_skip, protocol.max_frames, protocol.stack, protocol.size)
        assert shape == (4, 108_000, 4, 84)
        assert protocol.clip_rewards and protocol.backend == "native"
    assert (classic.sticky, classic.life_loss_ends, classic.actions) == (0.0, True, "minimal")
    assert (classic.noop_max, classic.fire_reset) == (30, True)
    assert (machado.sticky, machado.life_loss_ends, machado.actions) == (0.25, False, "full")
    assert (machado.noop_max, machado.fire_reset) == (0, False)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_config_takes_the_rest_from_its_preset(preset: str) -> None:
    given = {"preset": preset, "sticky": 0.1, "backend": "gym", "life_loss_ends": False}
    protocol = CONFIG.validate_python(given)
    assert asdict(protocol) == {**PRESETS[preset], **given}


def test_a_resolved_protocol_reads_back_as_itself() -> None:
    protocol = AtariProtocol("machado", noop_max=7)
    assert CONFIG.validate_python(asdict(protocol)) == protocol
    assert None not in asdict(protocol).values()


@pytest.mark.parametrize(
    "wrong",
    [
        {"preset": "clasic"},
        {"sticky": 1.0},
        {"sticky": -0.1},
        {"sticky": None},
        {"actions": "some"},
        {"backend": "retro"},
        {"noop_max": -1},
        {"frame_skip": 0},
        {"max_frames": 0},
        {"stack": 0},
        {"size": 8},
        {"life_loss_ends": "sometimes"},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        CONFIG.validate_python(wrong)


def test_code_is_told_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"sticky 2: expected 0 <= sticky < 1"):
        AtariProtocol(sticky=2)
