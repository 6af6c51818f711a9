"""How much memory a run takes: each function is run in a process of its own.

python -m clrl.bench.memory peak cpu
"""

from __future__ import annotations

import ctypes
import gc
import json
import resource
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, cast

import torch

from clrl.agents.a2c import A2C
from clrl.bench.figure import Device, Setting
from clrl.bench.pictures import Noise, noise_config
from clrl.bench.subject import assembled, learning
from clrl.envs.games import games
from clrl.envs.protocol import AtariProtocol
from clrl.methods.ewc import EWC
from clrl.run.assemble import assemble
from clrl.types import TaskSequence

__all__ = ["growth", "peak", "pictures"]

PEAK_ENVS, PEAK_UPDATES = 64, 5
TASKS = 60  # growth is counted over the last 20: until then caches and the heap settle
GROWTH_ENVS, UPDATES, STATES, EPISODES = 2, 1, 8, 2  # of each of these tasks
PICTURE_TASKS = 20
MAX_FRAMES = 200  # some of these games last for hours


def peak(setting: Setting) -> dict[str, Any]:
    """Return the peak of A2C with 64 environments, everything imported included, in GB."""
    imported = _status("VmRSS") / 1e9
    with learning(setting, A2C(n_envs=PEAK_ENVS)) as learner:
        for _ in range(PEAK_UPDATES):
            learner.update()
    parts = {"peak_gigabytes": _status("VmHWM") / 1e9, "after_imports_gigabytes": imported}
    if learner.settings.device.type == "cuda":
        parts["gpu_peak_gigabytes"] = torch.cuda.max_memory_allocated() / 1e9
    return {"value": parts["peak_gigabytes"], "parts": parts, "facts": {"n_envs": PEAK_ENVS}}


def growth(setting: Setting) -> dict[str, Any]:
    """Return how much more is in use after the last game under EWC than after two thirds, in MB.

    All games are different, and are learned, protected and evaluated as in a run. What the C
    library's heap keeps though it is free (it depends on which game asked for how much, and levels
    off) is given back before each reading; `untrimmed_megabytes` is the growth with it.
    """
    resident, untrimmed = [], []
    agent, method = A2C(n_envs=GROWTH_ENVS), EWC(n_samples=STATES, n_batches=4)
    short = AtariProtocol(max_frames=MAX_FRAMES)
    learner, tasks = assembled(setting, agent, tuple(games()[:TASKS]), method, protocol=short)
    with closing(learner):
        for task in tasks:
            learner.begin_task(task)
            for _ in range(UPDATES):
                learner.update()
            learner.end_task()
            learner.evaluate(task, EPISODES, seed=0)
            untrimmed.append(_status("VmRSS") / 1e6)
            resident.append(_in_use() / 1e6)
    settled = 2 * TASKS // 3
    before, last = resident[settled - 1], resident[-1]
    parts = {"first_megabytes": resident[0], "settled_megabytes": before, "last_megabytes": last}
    parts["untrimmed_megabytes"] = untrimmed[-1] - untrimmed[settled - 1]
    facts = {"tasks": TASKS, "n_envs": GROWTH_ENVS, "updates_per_task": UPDATES}
    return {"value": last - before, "parts": parts, "facts": facts | {"fisher_states": STATES}}


def pictures(setting: Setting) -> dict[str, Any]:
    """Return how much more is in use after 20 tasks under EWC than after 2, in MB: one net."""
    tasks = tuple(Noise(k, f"noise-{k}", 2) for k in range(PICTURE_TASKS))
    learner = assemble(noise_config(setting), TaskSequence(tasks, tuple(range(len(tasks)))))
    resident = []
    for task in tasks:
        learner.begin_task(task)
        for _ in range(UPDATES):
            learner.update()
        learner.end_task()
        learner.evaluate(task, 1, seed=0)
        resident.append(_in_use() / 1e6)
    parts = {"after_2_megabytes": resident[1], "last_megabytes": resident[-1]}
    return {"value": resident[-1] - resident[1], "parts": parts, "facts": {"tasks": len(tasks)}}


def _in_use() -> int:
    """Return the resident bytes that this process needs: garbage and free heap given back."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; musl has none
        if trim is not None:
            trim(0)
    return _status("VmRSS")


def _status(key: Literal["VmHWM", "VmRSS"]) -> int:
    """Return bytes of this process's memory, at its peak or now."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux: the peak stands for both
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    # not ru_maxrss on Linux: it begins with the peak of the process that started this one
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


if __name__ == "__main__":
    which, device = sys.argv[1:]
    wanted = Setting(device=cast(Device, device))
    print(json.dumps({"peak": peak, "growth": growth, "pictures": pictures}[which](wanted)))
