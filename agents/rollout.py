"""On-policy experience: rollouts in time-major order, advantages, and games played to the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from clrl.agents.interleaved import Interleaved, shares
from clrl.agents.learner import EvaluationRow, Learner, RunSettings
from clrl.agents.play import play, sample
from clrl.method import Method
from clrl.types import Batch, ClrlError, Episode, NetSpec, StepResult, Task, VectorEnv

__all__ = ["GameTask", "OnPolicy", "RolloutBatch", "gae"]

KEPT_OPEN = 8  # tasks whose environments for evaluation stay open: some 10 MB each


class GameTask(Protocol):
    """A task that opens as a vector of environments."""

    def open(self, n_envs: int, seed: int, *, training: bool, threads: int = 0) -> VectorEnv:
        """Open `n_envs` copies, seeded; with `training=False` lost lives end nothing."""
        ...


@dataclass
class RolloutBatch(Batch):
    """Experience of an on-policy learner: (T, N) when collected, flat (T * N,) when trained on."""

    action: Tensor  # long
    logp: Tensor  # log pi(action | x) of the policy that acted
    value: Tensor  # V(x) of that policy
    advantage: Tensor
    return_: Tensor  # advantage + value: the value head's target

    @property
    def target(self) -> Tensor:
        return self.action


def gae(
    reward: Tensor, value: Tensor, done: Tensor, last_value: Tensor, gamma: float, lam: float
) -> Tensor:
    """Return generalised advantages (T, N) (Schulman et al. 2016, eq. 16).

    Args:
        reward: (T, N); where an episode was truncated, `gamma * V(final_obs)` is already added.
        value: (T, N), V of the observation each step started from.
        done: (T, N) bool, whether the episode ended with the step.
        last_value: (N,), V of the observation after the last step.
        gamma: discount.
        lam: 0 gives one-step advantages, 1 discounted returns minus values.
    """
    advantage = torch.empty_like(reward)
    last = torch.zeros_like(last_value)
    next_value = last_value
    for t in reversed(range(len(reward))):
        goes_on = 1.0 - done[t].float()
        delta = reward[t] + gamma * next_value * goes_on - value[t]
        last = delta + gamma * lam * goes_on * last
        advantage[t] = last
        next_value = value[t]
    return advantage


@dataclass(kw_only=True)
class OnPolicy(Learner):
    """Collects rollouts from parallel environments; a subclass says how to learn from one."""

    kind: ClassVar[str] = "rl"

    n_envs: int = 8
    """Parallel environments."""
    n_steps: int = 128
    """Steps of each environment in one rollout."""
    gamma: float = 0.99
    """Discount of future rewards."""
    gae_lambda: float = 0.95
    """Bias against variance of the advantages: lower leans on the value estimates."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus: higher explores more."""
    vf_coef: float = 0.5
    """Weight of the value loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_positive("n_envs", "n_steps")
        self._require_share("gamma", "gae_lambda")
        self._require_not_negative("ent_coef", "vf_coef")

    def setup(self, method: Method, spec: NetSpec, settings: RunSettings) -> None:
        super().setup(method, spec, settings)
        shares(self.n_envs, len(method.mixture(spec.tasks)))  # refused now, not at a later visit
        method.require_rollout(self.n_envs, self.n_steps, 2 if settings.bf16 else 4)
        self._env: VectorEnv | None = None
        self._evaluation_envs: dict[tuple[int, int], VectorEnv] = {}  # by task and episodes

    def loss(self, batch: RolloutBatch) -> Tensor:
        """Score a flat batch: the scalar that `gradient_step` descends."""
        raise NotImplementedError

    def learn(self, batch: RolloutBatch) -> dict[str, float]:
        """Update the net from a flat rollout and return records."""
        raise NotImplementedError

    # ------------------------------------------------------------------------- life of a task

    def open_tasks(self) -> None:
        self._close_training()
        seed = self.seed_for(1, len(self.begun))
        threads = self.settings.threads and max(1, self.settings.threads // len(self.learned))
        parts = [
            cast(GameTask, task).open(n, seed, training=True, threads=threads)
            for task, n in zip(self.learned, self._shares(), strict=True)
        ]
        self._own = _rows_of(self.task, self.learned, self._shares())
        self._env = env = parts[0] if len(parts) == 1 else Interleaved(parts)
        self._obs = env.reset(seed)
        self._recent: deque[float] = deque(maxlen=100)  # raw returns of the last games
        self._x = self._pixels(env.obs_shape)
        self._context = torch.empty(0)

    def _pixels(self, shape: tuple[int, ...]) -> Tensor:
        """Return an empty (T, N, *shape) buffer; pictures channels-last, as convolutions want."""
        layout = torch.channels_last if len(shape) == 3 else torch.contiguous_format
        size, device = (self.n_steps * self.n_envs, *shape), self.settings.device
        buffer = torch.empty(size, dtype=torch.uint8, device=device, memory_format=layout)
        return buffer.view(self.n_steps, self.n_envs, *shape)

    def _contexts(self, one: Tensor) -> Tensor:
        """Return a (T, N, D) buffer for what frozen parts make, `one` (N, D) of a step."""
        size = (self.n_steps, *one.shape)
        if self._context.shape != size or self._context.dtype != one.dtype:
            self._context = one.new_empty(size)
        return self._context

    def _shares(self) -> list[int]:
        return shares(self.n_envs, len(self.learned))

    def _route(self, *, training: bool) -> Tensor:
        """Return (n_envs,) the sub-network of each environment."""
        parts = zip(self.learned, self._shares(), strict=True)
        return torch.cat([self.method.route(task, n, training=training) for task, n in parts])

    def _rerouted(self, route: Tensor, finished: Sequence[Episode]) -> Tensor:
        """Return routes for the steps after one at which games finished."""
        route, start = route.clone(), 0
        for task, n in zip(self.learned, self._shares(), strict=True):
            ended = [e._replace(env=e.env - start) for e in finished if 0 <= e.env - start < n]
            if ended:
                own = self.method.route(task, n, training=True, finished=ended)
                route[start : start + n] = own
            start += n
        return route

    def take_over(self, task: Task, state: dict[str, Any], weights: Sequence[Tensor]) -> str | None:
        super().take_over(task, state, weights)
        return self._restore_games(state)

    def update(self) -> dict[str, float]:
        self.net.train()
        batch = self.collect(self._route(training=True))
        self.step += self.n_steps * self.n_envs
        self.task_step += self.n_steps * self.n_envs
        self.method.observe(batch, self.task_progress)
        records = {"train/learning_rate": self.set_learning_rate()}
        flat = batch.flat()
        records |= self.learn(flat)
        self.latest = flat.x, flat.route
        if self._recent:
            records["rollout/return_mean"] = float(np.mean(self._recent))
        return records

    def end_task(self) -> None:
        self.net.eval()
        self.method.end_task(self.task, self._fresh_data())

    def _fresh_data(self) -> Iterator[Batch]:
        route = self._route(training=False)
        while True:
            self.extra_steps += self.n_steps * self.n_envs
            yield self.collect(route, training=False).flat()

    def evaluate(
        self, task: Task, episodes: int, seed: int, tick: Callable[[], None] = lambda: None
    ) -> list[EvaluationRow]:
        was_training = self.net.training
        self.net.eval()
        try:
            route = self.method.route(task, episodes, training=False)
            greedy = self.settings.greedy_evaluation
            env = self._evaluation_env(task, episodes)
            with self.autocast():
                return play(self.net, env, route, seed, greedy, self.settings.device, tick)
        except BaseException:  # given up, perhaps in the middle of a step
            self._close_evaluation()
            raise
        finally:
            self.net.train(was_training)

    def _evaluation_env(self, task: Task, episodes: int) -> VectorEnv:
        """Return environments that stay open from one evaluation to the next, if they are few."""
        key, opened = (task.id, episodes), self._evaluation_envs
        if key not in opened:
            if len(opened) == KEPT_OPEN:
                opened.pop(next(iter(opened))).close()
            opened[key] = cast(GameTask, task).open(
                episodes, 0, training=False, threads=self.settings.threads
            )
        return opened[key]

    def close(self) -> None:
        self._close_training()
        self._close_evaluation()

    def _close_evaluation(self) -> None:
        for env in self._evaluation_envs.values():
            env.close()
        self._evaluation_envs.clear()

    def _close_training(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    # -------------------------------------------------------------------------------- rollout

    def collect(self, route: Tensor, *, training: bool = True) -> RolloutBatch:
        """Play `n_steps` in every environment with routes (N,); return a (T, N, ...) batch.

        While `training`, the method may change a route where a game ends. Pixels and context are
        buffers that the next rollout overwrites: copy what must outlive it.
        """
        with torch.no_grad(), self.autocast():  # one context: weights are cast once a rollout
            return self._collect(route, training)

    def _collect(self, route: Tensor, training: bool) -> RolloutBatch:
        env = self._env
        assert env is not None, "collect() outside a task: call begin_task first"
        size, device = (self.n_steps, self.n_envs), self.settings.device
        reward, logp, value = torch.zeros(size), torch.zeros(size), torch.zeros(size)
        action = torch.zeros(size, dtype=torch.long)
        done = torch.zeros(size, dtype=torch.bool)
        score = torch.full(size, torch.nan)
        routes = torch.zeros(size, dtype=torch.long, device=device)
        on_device = route.to(device)
        for t in range(self.n_steps):
            routes[t] = on_device
            self._x[t].copy_(torch.from_numpy(self._obs))
            context = self.net.context(self._x[t], on_device)
            self._contexts(context)[t] = context
            output = self.net(self._x[t], on_device, context)
            log_pi = output.logits.float().cpu().log_softmax(-1)
            action[t] = sample(log_pi, self.generator)
            logp[t] = log_pi.gather(-1, action[t, :, None]).squeeze(-1)
            value[t] = _value(output.value)
            env.send(action[t].numpy())  # the emulators have all cores: torch's threads would
            result = env.recv()  # only wait for theirs in between
            self._obs = result.obs
            reward[t] = self._learned_reward(result.reward)
            if result.truncated.any():
                reward[t] += self._value_beyond(result, on_device)
            done[t] = torch.from_numpy(result.terminated | result.truncated)
            for episode in result.episodes:
                score[t, episode.env] = episode.return_
                if episode.env in self._own:
                    self._recent.append(episode.return_)
            if training and result.episodes:
                route = self._rerouted(route, result.episodes)
                on_device = route.to(device)
        last = self.net(torch.from_numpy(self._obs).to(device), on_device).value
        advantage = gae(reward, value, done, _value(last), self.gamma, self.gae_lambda)
        return RolloutBatch(
            x=self._x,
            route=routes,
            score=score.to(device),
            context=self._context,
            action=action.to(device),
            logp=logp.to(device),
            value=value.to(device),
            advantage=advantage.to(device),
            return_=(advantage + value).to(device),
        )

    def _learned_reward(self, raw: np.ndarray[Any, np.dtype[np.float32]]) -> Tensor:
        reward = torch.from_numpy(raw)
        return reward.sign() if self.settings.clip_rewards else reward

    def _value_beyond(self, result: StepResult, route: Tensor) -> Tensor:
        """Return (N,) `gamma * V(final_obs)` where a time limit ended the episode, else 0."""
        cut = result.truncated & ~result.terminated
        beyond = torch.zeros(self.n_envs)
        if result.final_obs is not None and cut.any():
            rows = torch.from_numpy(cut.nonzero()[0])
            final = torch.from_numpy(result.final_obs[cut]).to(self.settings.device)
            output = self.net(final, route[rows.to(route.device)])
            beyond[rows] = self.gamma * _value(output.value)
        return beyond

    # ---------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if self._env is not None:
            state["env"] = self._env.state_dict()
            state["recent"] = list(self._recent)
        return state

    def load_state_dict(self, state: dict[str, Any], tasks: tuple[Task, ...]) -> str | None:
        super().load_state_dict(state, tasks)
        if "env" not in state:
            return None
        self.open_tasks()
        return self._restore_games(state)

    def _restore_games(self, state: dict[str, Any]) -> str | None:
        """Put the games just opened where `state` has them; else say why they begin anew."""
        assert self._env is not None
        self._recent.extend(state["recent"])
        try:
            self._obs = self._env.load_state_dict(state["env"])
        except ClrlError as error:
            self._obs = self._env.reset(self.seed_for(3, self.step))
            return str(error)
        return None


def _rows_of(task: Task, tasks: Sequence[Task], shares: Sequence[int]) -> range:
    """Return which environments play `task`; all, if it is not among the tasks."""
    if task not in tasks:
        return range(sum(shares))
    k = tasks.index(task)
    return range(sum(shares[:k]), sum(shares[: k + 1]))


def _value(value: Tensor | None) -> Tensor:
    assert value is not None, "an on-policy learner needs a net with a value head"
    return value.float().cpu()
