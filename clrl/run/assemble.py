"""What a configuration means: a sequence of tasks, and a learner with its method's net."""

from __future__ import annotations

import copy
import random

import numpy as np
import torch

from clrl.agents.learner import Learner, RunSettings
from clrl.envs.sequences import SEQUENCES, build_sequence, is_game, shuffled
from clrl.envs.vision import IMAGE_SEQUENCES, build_image_sequence, is_image_entry, require_data
from clrl.nets.bodies import body
from clrl.run.config import Config
from clrl.run.memory import keep_freed_memory
from clrl.types import ClrlError, NetSpec, TaskSequence

__all__ = ["assemble", "sequence_of"]

# Of the initial weights of the body and of the heads. Agents: as stable-baselines3; they begin by
# trying everything. Pictures: the variance of torch's default, which published tables are made
# with. It matters: from weights 2.4 times as large, fine-tuning hardly forgets Split MNIST.
GAINS = {"rl": (2**0.5, 0.01), "supervised": (3**-0.5, 3**-0.5)}


def sequence_of(config: Config) -> TaskSequence:
    """Make the tasks and visits that a configuration names; opens no environment.

    Raises:
        ClrlError: games for a classifier, or pictures for an agent that plays.
    """
    wanted = config.sequence
    pictures = config.agent.kind == "supervised"
    named, others = (IMAGE_SEQUENCES, SEQUENCES) if pictures else (SEQUENCES, IMAGE_SEQUENCES)
    if wanted.name in others:
        raise ClrlError(
            f"sequence.name is {wanted.name!r}, which is of {'games' if pictures else 'pictures'}: "
            f"expected agent.name {'a2c or ppo' if pictures else 'supervised'}, or one of "
            f"{', '.join(named)}",
            2,
        )
    if not pictures and (wanted.scenario != "task" or wanted.held_out):
        raise ClrlError(
            f"sequence.scenario is {wanted.scenario!r}, sequence.held_out {wanted.held_out}: "
            "these are for pictures; a game is always known: choose net.heads instead",
            2,
        )
    for entry in wanted.tasks or ():
        if is_game(entry) if pictures else is_image_entry(entry):
            raise ClrlError(
                f"sequence.tasks: {entry!r} is {'a game' if pictures else 'a set of pictures'}: "
                f"expected agent.name {'a2c or ppo' if pictures else 'supervised'}",
                2,
            )
    if wanted.name:
        entries = named[wanted.name].entries(wanted.order_seed)
    else:
        entries = shuffled(wanted.tasks or (), wanted.order_seed)
    shared_head = config.net.heads == "shared"
    if pictures:
        return build_image_sequence(
            entries, wanted.cycles, wanted.scenario, shared_head, wanted.held_out
        )
    return build_sequence(entries, wanted.cycles, config.protocol, shared_head)


def assemble(config: Config, sequence: TaskSequence) -> Learner:
    """Make the learner of a run, set up with its method's net; opens no environment.

    Raises:
        ClrlError: no such device, missing data, or a method, net and tasks that do not fit.
    """
    require_data(sequence)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ClrlError("device is 'cuda' but torch finds no GPU: use device=cpu or auto", 2)
    use_cuda = config.device != "cpu" and torch.cuda.is_available()
    torch.set_num_threads(config.threads or torch.get_num_threads())
    keep_freed_memory()
    random.seed(config.seed)
    np.random.seed(config.seed % 2**32)  # noqa: NPY002  libraries may draw from it
    torch.manual_seed(config.seed)
    plays = config.agent.kind == "rl"
    hidden_gain, logits_gain = GAINS[config.agent.kind]
    spec = NetSpec(
        input_shape=sequence.tasks[0].input_shape,
        body=body(config.net.body, config.net.hidden),
        tasks=sequence.tasks,
        shared_head=config.net.heads == "shared",
        masks=config.sequence.scenario == "task",
        has_value=plays,
        hidden_gain=hidden_gain,
        logits_gain=logits_gain,
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
