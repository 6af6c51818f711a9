"""What a run keeps at the end of every visit, and the films that `clrl record` makes of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from clrl.run import checkpoint
from clrl.run.config import load_config
from clrl.run.record import FPS, Film, record
from clrl.run.train import train
from clrl.types import ClrlError

ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="films need imageio-ffmpeg")

HEIGHT, WIDTH = 3 * 210, 3 * (160 + 10 + 210)

CONFIG = """
name: films
sequence: {tasks: [Freeway, Freeway-vflip], steps: 64}
agent: {name: ppo, n_envs: 4, n_steps: 16, batch_size: 32, n_epochs: 1}
method: {name: progressive}
net: {body: pnn, heads: per_task}
protocol: {preset: classic, noop_max: 0, max_frames: 120}
evaluation: {every: 0, episodes: 1, unseen: never}
threads: 1
device: cpu
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    (folder / "films.yaml").write_text(CONFIG)
    return train(load_config(folder / "films.yaml"), folder / "runs")


@pytest.fixture(scope="module")
def films(run: Path) -> dict[str, Film]:
    return {film.path.name: film for film in record(run)}


def pictures(film: Film) -> np.ndarray:
    """Return (frames, height, width, 3) as ffmpeg decodes them."""
    decode = [ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(film.path)]
    raw = subprocess.run([*decode, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True)
    return np.frombuffer(raw.stdout, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)


def test_the_net_of_every_visits_end_is_kept(run: Path) -> None:
    first, last = checkpoint.load_each(run / "ends")
    assert (first.meta["visit"], last.meta["visit"]) == (1, 2)
    assert (first.state["begun"], last.state["begun"]) == ([0], [0, 1])
    newest = checkpoint.load_latest(run / "checkpoints")
    assert newest is not None
    assert last.state["net"].keys() == newest.state["learner"]["net"].keys()
    for name, weight in last.state["net"].items():
        assert torch.equal(weight, newest.state["learner"]["net"][name])


def test_every_task_is_filmed_after_every_visit_since_it_began(
    run: Path, films: dict[str, Film]
) -> None:
    assert list(films) == [
        "Freeway-after-1-Freeway.mp4",
        "Freeway-after-2-Freeway-vflip.mp4",
        "Freeway-vflip-after-2-Freeway-vflip.mp4",
    ]
    assert {path.name for path in (run / "videos").iterdir()} == set(films)
    assert all(film.score is not None for film in films.values())  # 30 steps: to the end


def test_a_film_shows_the_screen_and_beside_it_what_the_agent_sees(films: dict[str, Film]) -> None:
    upright, flipped = (pictures(films[name]) for name in list(films)[1:])
    assert len(upright) == 120 // 4  # the start, and all steps but the one that ends the game
    one, other = upright[0].mean(-1), flipped[0].mean(-1)
    screen, seen = slice(0, 160 * 3), slice(170 * 3, None)
    assert np.abs(one[:, screen] - other[:, screen]).mean() < 3  # the same game at the start
    assert np.abs(one[:, seen] - other[:, seen]).mean() > 10
    assert np.abs(one[:, seen] - other[::-1, seen]).mean() < 3


def test_a_progressive_net_plays_an_old_game_as_it_did(films: dict[str, Film]) -> None:
    before, after = list(films.values())[:2]
    assert np.array_equal(pictures(before), pictures(after))


def test_films_end_where_they_are_asked_to(run: Path) -> None:
    (film,) = record(run, task="Freeway-vflip", seconds=1)
    assert len(pictures(film)) == FPS
    assert film.score is None


def test_what_cannot_be_filmed_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ClrlError, match=r"has no task 'Freewya'.*Freeway") as error:
        list(record(run, task="Freewya"))
    assert error.value.exit_code == 2
    (tmp_path / "films.yaml").write_text(CONFIG)
    config = load_config(tmp_path / "films.yaml", ["checkpoint.ends=false", "sequence.steps=64"])
    bare = train(config, tmp_path / "runs")
    assert not (bare / "ends").exists()
    with pytest.raises(ClrlError, match="kept no net at the end of a visit") as error:
        list(record(bare))
    assert error.value.exit_code == 2
    assert not (bare / "videos").exists()


def test_pictures_are_not_filmed(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the bundled digits come with scikit-learn")
    (tmp_path / "digits.yaml").write_text(
        "{name: digits, sequence: {tasks: ['digits:0+1'], steps: 2}, agent: {name: supervised}, "
        "method: {name: finetune}, net: {body: mlp, hidden: [4]}}"
    )
    run = train(load_config(tmp_path / "digits.yaml"), tmp_path / "runs")
    with pytest.raises(ClrlError, match="only games can be filmed"):
        list(record(run))
