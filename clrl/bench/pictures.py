"""What learning pictures costs: a whole command, and a step beside a per-sample data loader."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from clrl.agents.supervised import Supervised
from clrl.bench.figure import Measurement, Setting, interleave, seconds_per_unit
from clrl.bench.subject import ENDLESS, best_precision, finish_work
from clrl.envs.datasets import Examples, require
from clrl.methods.ewc import EWC
from clrl.run.assemble import assemble
from clrl.run.config import Config, NetConfig, SequenceConfig, to_yaml
from clrl.types import ClrlError, Task, TaskSequence

__all__ = ["Noise", "noise_config", "over_loader", "split_mnist"]

PICTURES, BATCH, HIDDEN = 12_000, 128, (400, 400)  # as many as a pair of MNIST's digits
STRENGTH, LEARNING_RATE = 100.0, 1e-3


def split_mnist(setting: Setting) -> Measurement:
    """Measure all of `clrl train` on Split MNIST under EWC: 5 tasks, 2,000 steps of 128 each.

    Raises:
        ClrlError: (exit 3) without MNIST.
    """
    require("mnist")
    sequence = SequenceConfig(name="split_mnist", steps=2_000)
    config = _config(sequence, setting)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text(to_yaml(config))

        def command() -> float:
            runs = tempfile.mkdtemp(dir=folder)
            words = [sys.executable, "-m", "clrl", "train", str(path), "--runs", runs]
            began = perf_counter()
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ClrlError(f"{' '.join(words)}: {done.stderr.strip().splitlines()[-1]}")
            return perf_counter() - began

        seconds = [command() for _ in range(setting.pairs)]
    facts = {"steps": 10_000, "batch_size": BATCH, "precision": config.precision}
    return Measurement(seconds, {"seconds": seconds, **facts, **_threads()})


def over_loader(setting: Setting, precision: Literal["best", "float32"]) -> Measurement:
    """Measure a step's time in the usual loop over its time here: the same net, batch and penalty.

    The usual loop is float32, takes each picture by itself from a `Dataset`, scales it, collates
    the batch with a `DataLoader`, and adds EWC's penalty to the loss, parameter by parameter.
    Pixels and labels are noise: how long a step takes does not depend on them.

    Args:
        setting: how.
        precision: ours; `best` is bf16 where it is native.
    """
    task = Noise(0, "noise", 2)
    config = noise_config(setting)
    if precision == "float32":
        config = replace(config, precision="float32")
    learner = assemble(config, TaskSequence((task,), (0,)))
    learner.begin_task(task)
    learner.update()
    learner.end_task()  # a task behind it, whose penalty acts
    learner.begin_task(task)

    def here() -> int:
        before = learner.step
        learner.update()
        return learner.step - before

    wait, least = finish_work(learner.settings.device), setting.seconds
    usual = _usual_loop(task.examples("train"), learner.settings.device)
    rows = interleave(
        lambda: seconds_per_unit(usual, least, wait),
        lambda: seconds_per_unit(here, least, wait),
        pairs=setting.pairs,
    )
    return Measurement(
        [theirs / ours for theirs, ours in rows],
        {
            "usual_seconds": [theirs for theirs, _ in rows],
            "clrl_seconds": [ours for _, ours in rows],
            "precision": config.precision,
            **_threads(),
        },
    )


def noise_config(setting: Setting) -> Config:
    """Return a configuration to learn `Noise` with; its own sequence is not used."""
    return _config(SequenceConfig(tasks=("mnist",), steps=ENDLESS), setting)


def _config(sequence: SequenceConfig, setting: Setting) -> Config:
    return Config(
        name="bench",
        sequence=sequence,
        agent=Supervised(batch_size=BATCH, learning_rate=LEARNING_RATE),
        method=EWC(strength=STRENGTH),
        net=NetConfig(body="mlp", hidden=HIDDEN),
        device=setting.device,
        precision=best_precision(setting.device),
    )


def _threads() -> dict[str, int]:
    return {"torch_threads": torch.get_num_threads()}


@dataclass(frozen=True)
class Noise(Task):
    """Pictures of MNIST's size that show nothing."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1, 28, 28)

    @property
    def evaluated_split(self) -> str:
        return "train"

    def examples(self, split: str) -> Examples:
        x = torch.randint(0, 256, (PICTURES, *self.input_shape), dtype=torch.uint8)
        return Examples(x, torch.randint(0, self.n_outputs, (PICTURES,)))


class _OneByOne(Dataset[tuple[Tensor, Tensor]]):
    """What data loaders usually get: a picture at a time, scaled."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples.label)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.examples.x[index].float() / 255.0, self.examples.label[index]


def _usual_loop(examples: Examples, device: torch.device) -> Callable[[], int]:
    """Return a step of the usual loop."""
    net = nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, HIDDEN[0]),
        nn.ReLU(),
        nn.Linear(HIDDEN[0], HIDDEN[1]),
        nn.ReLU(),
        nn.Linear(HIDDEN[1], 2),
    ).to(device)
    trunk = list(net.parameters())[:-2]
    anchor = [p.detach().clone() for p in trunk]
    fisher = [torch.rand_like(p) for p in trunk]
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    loader = DataLoader(_OneByOne(examples), batch_size=BATCH, shuffle=True, drop_last=True)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    source = batches()

    def step() -> int:
        x, label = next(source)
        loss = F.cross_entropy(net(x.to(device)), label.to(device))
        for p, a, f in zip(trunk, anchor, fisher, strict=True):
            loss = loss + STRENGTH / 2 * (f * (p - a).square()).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return 1

    return step
