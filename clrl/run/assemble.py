"""What a configuration means: a sequence of tasks, and a learner with its method's net."""

from __future__ import annotations

import copy
import random

import numpy as np
import torch

from clrl.agents.learner import Learner, RunSettings
from clrl.envs.sequences import SEQUENCES, build_sequence, shuffled
from clrl.nets.bodies import body
from clrl.run.config import Config
from clrl.run.memory import keep_freed_memory
from clrl.types import ClrlError, NetSpec, TaskSequence

__all__ = ["assemble", "sequence_of"]


def sequence_of(config: Config) -> TaskSequence:
    """Make the tasks and visits that a configuration names; opens no environment."""
    wanted = config.sequence
    if wanted.name:
        entries = SEQUENCES[wanted.name].entries(wanted.order_seed)
    else:
        entries = shuffled(wanted.tasks or (), wanted.order_seed)
    shared_head = config.net.heads == "shared"
    return build_sequence(entries, wanted.cycles, config.protocol, shared_head)


def assemble(config: Config, sequence: TaskSequence) -> Learner:
    """Make the learner of a run, set up with its method's net; opens no environment."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ClrlError("device is 'cuda' but torch finds no GPU: use device=cpu or auto", 2)
    use_cuda = config.device != "cpu" and torch.cuda.is_available()
    torch.set_num_threads(config.threads or torch.get_num_threads())
    keep_freed_memory()
    random.seed(config.seed)
    np.random.seed(config.seed % 2**32)  # noqa: NPY002  libraries may draw from it
    torch.manual_seed(config.seed)
    spec = NetSpec(
        input_shape=sequence.tasks[0].input_shape,
        body=body(config.net.body, config.net.hidden),
        tasks=sequence.tasks,
        shared_head=config.net.heads == "shared",
    )
    settings = RunSettings(
        seed=config.seed,
        steps_per_visit=config.sequence.steps,
        n_visits=len(sequence.visits),
        device=torch.device("cuda" if use_cuda else "cpu"),
        bf16=config.precision == "bf16",
        clip_rewards=config.protocol.clip_rewards,
        greedy_evaluation=config.evaluation.policy == "greedy",
        threads=config.threads,
        frames_per_step=config.protocol.frame_skip,
    )
    learner = copy.deepcopy(config.agent)
    learner.setup(copy.deepcopy(config.method), spec, settings)
    return learner
