"""Films of every task, as it was played at the end of every visit."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from clrl.agents.learner import Learner
from clrl.agents.play import play
from clrl.envs.atari import AtariTask
from clrl.run import checkpoint
from clrl.run.assemble import assemble, sequence_of
from clrl.run.config import load_config
from clrl.run.folder import RunFolder
from clrl.run.yaml_safe import nearest
from clrl.types import ClrlError, StepResult, Task, VectorEnv

__all__ = ["record"]

FPS = 15  # agent steps of 4 frames, of the console's 60 a second
MARGIN = 10  # between the screen and what the agent sees of it
ZOOM = 3

Picture = NDArray[np.uint8]


class _Writer(Protocol):
    """What `imageio_ffmpeg.write_frames` gives: a generator that takes pictures."""

    def send(self, picture: bytes | None) -> None: ...
    def close(self) -> None: ...


class _Enough(Exception):
    """The film is as long as was asked for."""


class _Filmed:
    """A game that is filmed while it is played: its screen, beside it the newest observation."""

    def __init__(self, env: Any, path: Path, steps: int) -> None:
        self._env, self._path, self._left = env, path, steps
        self._writer: _Writer | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, seed: int) -> Picture:
        obs: Picture = self._env.reset(seed)
        self._film(obs)
        return obs

    def recv(self) -> StepResult:
        result: StepResult = self._env.recv()
        if not result.episodes:  # else it is the next game's first
            self._film(result.obs)
        return result

    def _film(self, obs: Picture) -> None:
        if not self._left:
            raise _Enough
        self._left -= 1
        picture = _side_by_side(self._env.render()[0], obs[0, -1])
        if self._writer is None:
            self._writer = _writer(self._path, picture)
        self._writer.send(picture.tobytes())

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _side_by_side(screen: Picture, seen: Picture) -> Picture:
    """Return (height, width, 3): a screen, and an observation (size, size) enlarged beside it."""
    height = screen.shape[0]
    square = cv2.resize(seen, (height, height), interpolation=cv2.INTER_NEAREST)
    gap = np.zeros((height, MARGIN, 3), dtype=np.uint8)
    return np.concatenate([screen, gap, np.repeat(square[..., None], 3, axis=2)], axis=1)


def _writer(path: Path, picture: Picture) -> _Writer:
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped]
    except ImportError as error:
        raise ClrlError("films need imageio-ffmpeg: pip install 'clrl[video]'", 3) from error
    height, width = picture.shape[:2]
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=FPS,
        macro_block_size=2,
        output_params=["-vf", f"scale={ZOOM}*iw:{ZOOM}*ih:flags=neighbor"],
        ffmpeg_log_level="error",
    )
    writer.send(None)
    return cast(_Writer, writer)


@dataclass(frozen=True)
class Film:
    """One film.

    Attributes:
        path: the file.
        task: what is played.
        visit: how many visits were through (1, 2, ...).
        after: the task of the last of them.
        score: raw return, of a game played to its end in the film; else None.
    """

    path: Path
    task: str
    visit: int
    after: str
    score: float | None


def record(run: Path, *, task: str | None = None, seconds: float = 60.0) -> Iterator[Film]:
    """Play every task that was begun, after every visit, and film it; yields as films are made.

    All films of a task show the same game (the same seed), so that they differ by what was learned
    in between. They are written to `videos/` in the run folder, those that are there anew.

    Args:
        run: the run folder of games.
        task: name of one of its tasks; None: all.
        seconds: how long a film may become; 15 agent steps a second.

    Raises:
        ClrlError: no such run or task, pictures instead of games, nothing kept to play with.
    """
    folder = RunFolder.open(run)
    config = load_config(folder.config)
    sequence = sequence_of(config)
    names = [t.name for t in sequence.tasks]
    if task is not None and task not in names:
        raise ClrlError(f"{run} has no task {task!r}{nearest(task, names)}", 2)
    if not all(isinstance(t, AtariTask) for t in sequence.tasks):
        raise ClrlError(f"{run} learns pictures: only games can be filmed", 2)
    ends = 0
    for end in checkpoint.load_each(folder.ends):
        ends += 1
        learner = assemble(config, sequence)
        learner.load_net(end.state, sequence.tasks)
        learner.net.eval()
        for t in dict.fromkeys(learner.begun):
            if task in (None, t.name):
                yield _film(learner, t, end.meta["visit"], folder.videos, round(seconds * FPS))
    if not ends:
        raise ClrlError(
            f"{run} kept no net at the end of a visit: none is through yet, or it was trained with "
            "checkpoint.ends=false",
            2,
        )


def _film(learner: Learner, task: Task, visit: int, videos: Path, steps: int) -> Film:
    after = learner.task.name
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{task.name} after {visit} {after}").strip("-")
    videos.mkdir(exist_ok=True)
    path, tmp = videos / f"{name}.mp4", videos / f".{name}.tmp-{os.getpid()}.mp4"
    assert isinstance(task, AtariTask)
    on_screen = replace(task, protocol=replace(task.protocol, backend="gym"))
    seed, settings = learner.seed_for(7, task.id), learner.settings
    env = _Filmed(on_screen.open(1, seed, training=False), tmp, steps)
    score = None
    try:
        route, device = learner.method.route(task, 1, training=False), settings.device
        with learner.autocast():
            played = cast(VectorEnv, env)
            rows = play(
                learner.net, played, route, seed, settings.greedy_evaluation, device, lambda: None
            )
        score = float(rows[0]["return"])
    except _Enough:
        pass
    except BaseException:
        env.finish()
        tmp.unlink(missing_ok=True)
        raise
    finally:
        env.close()
    env.finish()
    tmp.replace(path)
    return Film(path, task.name, visit, after, score)
