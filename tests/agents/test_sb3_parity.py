"""The same rollout and weights give the same update as stable-baselines3 2.9, to 1e-6."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C as SB3A2C
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.vec_env import DummyVecEnv

from clrl.agents.a2c import A2C
from clrl.agents.learner import RunSettings
from clrl.agents.ppo import PPO
from clrl.agents.rollout import OnPolicy, RolloutBatch, gae
from clrl.method import Method
from clrl.nets.bodies import body
from clrl.types import NetSpec, Task

N_ACTIONS = 6
TASK = Task(0, "game", N_ACTIONS)
SPEC = NetSpec((4, 84, 84), body("nature"), (TASK,))


class Still(gym.Env[np.ndarray, int]):
    """Gives SB3 the spaces of an Atari game; never played."""

    observation_space = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = gym.spaces.Discrete(N_ACTIONS)  # type: ignore[assignment]


def theirs(algorithm: type[OnPolicyAlgorithm], **settings: object) -> OnPolicyAlgorithm:
    model = algorithm("CnnPolicy", DummyVecEnv([Still] * 4), device="cpu", **settings)
    model.set_logger(Logger(None, []))
    return model


def ours(learner: OnPolicy) -> OnPolicy:
    settings = RunSettings(0, 1000, 1, torch.device("cpu"), clip_rewards=True)
    learner.setup(Method(), SPEC, settings)
    learner.begun.append(TASK)
    learner.optimizer = learner.make_optimizer(learner.method.trainable())
    return learner


def in_double(model: OnPolicyAlgorithm, learner: OnPolicy) -> None:
    """Make both nets double; pictures reach both in float32, scaled."""

    def widen(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(x.double() for x in inputs)

    model.policy.double()
    learner.net.double()
    for first in (model.policy.features_extractor, learner.net.trunk):
        first.register_forward_pre_hook(widen)


NAMES = {  # stable-baselines3's name: ours
    "features_extractor.cnn.0": "trunk.0",
    "features_extractor.cnn.2": "trunk.2",
    "features_extractor.cnn.4": "trunk.4",
    "features_extractor.linear.0": "trunk.7",
    "action_net": "heads.policy.0",
    "value_net": "heads.value.0",
}


def parameter_pairs(model: OnPolicyAlgorithm, learner: OnPolicy):
    for their_name, our_name in NAMES.items():
        for kind in ("weight", "bias"):
            yield (
                model.policy.get_parameter(f"{their_name}.{kind}"),
                learner.net.get_parameter(f"{our_name}.{kind}"),
            )


def fill(
    buffer: RolloutBuffer, model: OnPolicyAlgorithm, seed: int = 0, scale: float = 5.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fill SB3's buffer with a random rollout; return where episodes end, and the last values.

    Rewards of deviation `scale` make gradients long enough for clipping to act. The stored
    log-probabilities are shifted, so that ratios leave the clip range in the first epoch already.
    """
    rng = np.random.default_rng(seed)
    n_steps, n_envs = buffer.buffer_size, buffer.n_envs
    start = np.ones(n_envs, dtype=bool)
    done = rng.random((n_steps, n_envs)) < 0.2
    for t in range(n_steps):
        obs = rng.integers(0, 256, (n_envs, 4, 84, 84), dtype=np.uint8)
        action = rng.integers(0, N_ACTIONS, n_envs)
        with torch.no_grad():
            value, logp, _ = model.policy.evaluate_actions(
                torch.from_numpy(obs), torch.from_numpy(action)
            )
        reward = rng.normal(0, scale, n_envs)
        shifted = logp + 0.3 * torch.from_numpy(rng.normal(size=n_envs)).float()
        buffer.add(obs, action[:, None], reward, start, value.flatten(), shifted)
        start = done[t]
    last = torch.from_numpy(rng.normal(size=n_envs)).float()
    buffer.compute_returns_and_advantage(last, start)
    return torch.from_numpy(done), last


def as_ours(buffer: RolloutBuffer) -> RolloutBatch:
    """Copy SB3's rollout, flat in its own order: environment by environment."""

    def flat(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(RolloutBuffer.swap_and_flatten(array)).squeeze(-1)

    n = buffer.buffer_size * buffer.n_envs
    return RolloutBatch(
        x=flat(buffer.observations).to(torch.uint8),
        route=torch.zeros(n, dtype=torch.long),
        score=torch.full((n,), torch.nan),
        action=flat(buffer.actions).long(),
        logp=flat(buffer.log_probs),
        value=flat(buffer.values),
        advantage=flat(buffer.advantages),
        return_=flat(buffer.returns),
    )


def assert_same_update(
    model: OnPolicyAlgorithm, learner: OnPolicy, train, within: float = 1e-6
) -> None:
    with torch.no_grad():
        for their_p, our_p in parameter_pairs(model, learner):
            our_p.copy_(their_p)
    before = [p.detach().clone() for p, _ in parameter_pairs(model, learner)]
    train()
    moved = 0.0
    for was, (their_p, our_p) in zip(before, parameter_pairs(model, learner), strict=True):
        moved = max(moved, float((their_p - was).abs().max().detach()))
        assert float((their_p - our_p).abs().max().detach()) <= within
    assert moved > 5e-5  # something was compared


@pytest.mark.parametrize(
    ("normalize_advantage", "n_epochs", "double"),
    [(True, 3, True), (False, 3, True), (True, 1, False), (False, 1, False)],
)
def test_a_ppo_update_of_several_minibatches_and_epochs_is_theirs(
    normalize_advantage, n_epochs, double
):
    # Whether a ratio is clipped is yes or no: over many steps float32's rounding, which depends on
    # the processor, flips one sample in some runs, and 1e-8 becomes 4e-5. In double it cannot.
    shared = {"learning_rate": 2.5e-4, "n_steps": 16, "batch_size": 16, "n_epochs": n_epochs}
    shared |= {"clip_range": 0.1, "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 0.5}
    model = theirs(SB3PPO, normalize_advantage=normalize_advantage, **shared)
    learner = ours(
        PPO(
            n_envs=4,
            learning_rate_schedule="constant",
            normalize_advantage=normalize_advantage,
            **shared,
        )
    )
    if double:
        in_double(model, learner)
    fill(model.rollout_buffer, model, scale=5.0 if normalize_advantage else 1.0)
    if double:
        for name in ("values", "log_probs", "advantages", "returns"):
            exact = getattr(model.rollout_buffer, name).astype(np.float64)
            setattr(model.rollout_buffer, name, exact)
    batch = as_ours(model.rollout_buffer)

    def train() -> None:
        np.random.seed(7)  # noqa: NPY002  where SB3 draws its permutations
        model.train()
        np.random.seed(7)  # noqa: NPY002
        learner.permutation = lambda n: torch.from_numpy(np.random.permutation(n))  # noqa: NPY002
        records = learner.learn(batch)
        assert records["train/gradient_norm"] > 0.5  # clipping was active
        assert records["train/clip_fraction"] > 0.3

    assert_same_update(model, learner, train, within=1e-9 if double else 1e-6)


def test_ppos_fused_adam_is_the_adam_of_stable_baselines3():
    model, learner = theirs(SB3PPO, learning_rate=2.5e-4), ours(PPO(learning_rate=2.5e-4))
    assert not model.policy.optimizer.defaults["fused"]
    generator = torch.Generator().manual_seed(0)
    pairs = list(parameter_pairs(model, learner))
    with torch.no_grad():
        for their_p, our_p in pairs:
            our_p.copy_(their_p)
    for _ in range(12):
        for their_p, our_p in pairs:
            size = torch.rand(their_p.shape, generator=generator).pow(8)  # some are tiny
            their_p.grad = 0.1 * size * torch.randn(their_p.shape, generator=generator)
            our_p.grad = their_p.grad.clone()
        model.policy.optimizer.step()
        learner.optimizer.step()
    gaps = [float((a - b).abs().max().detach()) for a, b in pairs]
    assert 0 < max(gaps) <= 1e-7


@pytest.mark.parametrize("optimizer", ["rmsprop_tf", "rmsprop"])
def test_an_a2c_update_is_theirs(optimizer):
    shared = {"learning_rate": 7e-4, "n_steps": 5, "ent_coef": 0.01, "vf_coef": 0.25}
    policy = {"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"eps": 1e-5}}
    model = theirs(
        SB3A2C,
        max_grad_norm=0.5,
        **shared,
        **({"policy_kwargs": policy} if optimizer == "rmsprop_tf" else {}),
    )
    learner = ours(
        A2C(n_envs=4, learning_rate_schedule="constant", optimizer_name=optimizer, **shared)
    )

    def train() -> None:
        for seed in range(3):  # three updates, so that the optimizer's averages matter
            model.rollout_buffer.reset()
            fill(model.rollout_buffer, model, seed)
            batch = as_ours(model.rollout_buffer)
            model.train()
            assert learner.learn(batch)["train/gradient_norm"] > 0.5

    assert_same_update(model, learner, train)


@pytest.mark.parametrize("lam", [0.0, 0.95, 1.0])
def test_advantages_are_theirs_across_episode_ends(lam):
    model = theirs(SB3A2C, n_steps=12, gamma=0.97, gae_lambda=lam)
    buffer = model.rollout_buffer
    done, last = fill(buffer, model)
    reward, value = torch.from_numpy(buffer.rewards), torch.from_numpy(buffer.values)
    advantage = gae(reward, value, done, last, 0.97, lam)
    assert done.any()
    torch.testing.assert_close(advantage, torch.from_numpy(buffer.advantages), atol=1e-6, rtol=1e-6)


def test_advantages_equal_the_sum_of_discounted_errors():
    # Schulman et al. 2016, eq. 16, summed directly: A_t = sum_l (gamma lam)^l delta_{t+l}
    generator = torch.Generator().manual_seed(0)
    reward, value = torch.randn(9, 2, generator=generator), torch.randn(9, 2, generator=generator)
    last, done = torch.randn(2, generator=generator), torch.zeros(9, 2, dtype=torch.bool)
    done[3, 0] = done[5, 1] = True
    nexts = torch.cat([value[1:], last[None]])
    delta = reward + 0.9 * nexts * ~done - value
    expected = torch.zeros(9, 2)
    for env in range(2):
        for t in range(9):
            weight = 1.0
            for k in range(t, 9):
                expected[t, env] += weight * delta[k, env]
                if done[k, env]:
                    break
                weight *= 0.9 * 0.8
    torch.testing.assert_close(gae(reward, value, done, last, 0.9, 0.8), expected)
