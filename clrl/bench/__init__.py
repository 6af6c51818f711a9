"""`clrl bench`: figures measured on the user's own machine, beside their goals.

A new figure is one line in `FIGURES` and the function it names, which takes a `Setting` and what
else the line gives it, and returns a `Measurement`.
"""

from clrl.bench.figure import Figure

__all__ = ["FIGURES"]

SPEED, METHODS, COSTS = "clrl.bench.speed", "clrl.bench.methods", "clrl.bench.costs"
PICTURES, PROGRESSIVE = "clrl.bench.pictures", "clrl.bench.progressive"
PATHNET = "clrl.bench.pathnet"

# fmt: off
FIGURES = (
    Figure("a2c", "A2C's steps/s (bf16 where it is native) over stable-baselines3's",
           "at least", 3.0, "x", f"{SPEED}:over_sb3", ("a2c", "best")),
    Figure("ppo", "PPO's steps/s (bf16 where it is native) over stable-baselines3's",
           "at least", 3.0, "x", f"{SPEED}:over_sb3", ("ppo", "best")),
    Figure("a2c_float32", "A2C's steps/s in float32 over stable-baselines3's",
           "at least", None, "x", f"{SPEED}:over_sb3", ("a2c", "float32")),
    Figure("ppo_float32", "PPO's steps/s in float32 over stable-baselines3's",
           "at least", None, "x", f"{SPEED}:over_sb3", ("ppo", "float32")),
    Figure("a2c_limit", "A2C's share of 1 / (1/emulators + 1/forward + 1/training)",
           "at least", 0.85, "", f"{SPEED}:share_of_limit", ("a2c",)),
    Figure("ppo_limit", "PPO's share of 1 / (1/emulators + 1/forward + epochs/training)",
           "at least", 0.85, "", f"{SPEED}:share_of_limit", ("ppo",)),
    *(Figure(f"{name}_{n}", f"an update's time under {name} over fine-tuning's, {n} behind it",
             "at most", 1.05, "x", f"{METHODS}:update", (name, n))
      for name, n in (("ewc", 1), ("ewc", 10), ("ewc", 100), ("l2", 10), ("mas", 10), ("spp", 10),
                      ("si", 10))),
    *(Figure(f"{name}_pictures", f"a step on pictures: {name} over fine-tuning, 10 behind it",
             "at most", 1.05, "x", f"{METHODS}:update", (name, 10, None, "pictures"))
      for name in ("ewc", "l2", "mas", "spp", "si")),
    Figure("ewc_decoupled", "an update's time under ewc with form: decoupled, 10 behind it",
           "at most", 1.05, "x", f"{METHODS}:update", ("ewc", 10, {"form": "decoupled"})),
    Figure("fisher", "exact Fisher of 500 states and 18 actions: speed over a loop over samples",
           "at least", 4.0, "x", f"{METHODS}:fisher_over_loop"),
    Figure("fisher_seconds", "exact Fisher of 500 states and 18 actions: time",
           "at most", 3.0, "s", f"{METHODS}:fisher_seconds"),
    Figure("memory", "peak resident memory of A2C with 64 environments",
           "at most", 1.5, "GB", f"{COSTS}:memory", ("peak",)),
    Figure("memory_growth", "growth of memory in use over the last 20 of 60 games under EWC",
           "at most", 5.0, "MB", f"{COSTS}:memory", ("growth",)),
    Figure("memory_pictures", "growth of memory in use from 2 to 20 tasks of pictures under EWC",
           "at most", 5.0, "MB", f"{COSTS}:memory", ("pictures",)),
    Figure("startup_help", "clrl --help in a fresh process",
           "at most", 0.5, "s", f"{COSTS}:startup", ("--help",)),
    Figure("startup_list", "clrl list methods in a fresh process",
           "at most", 0.5, "s", f"{COSTS}:startup", ("list", "methods")),
    Figure("evaluation_a2c", "time per step: 10 games of Breakout evaluated over A2C's training",
           "at most", 1.0, "x", f"{COSTS}:evaluation", ("a2c", "Breakout")),
    Figure("evaluation_ppo", "time per step: 10 games of Breakout evaluated over PPO's training",
           "at most", 1.0, "x", f"{COSTS}:evaluation", ("ppo", "Breakout")),
    Figure("evaluation_long", "time per step: 10 games of Freeway, long ones, over A2C's training",
           "at most", 1.0, "x", f"{COSTS}:evaluation", ("a2c", "Freeway")),
    Figure("evaluation_share", "share of a run of PPO on quick3, 1M steps a game, spent evaluating",
           "at most", 0.1, "", f"{COSTS}:evaluation_share"),
    Figure("split_mnist", "Split MNIST under EWC, 5 x 2,000 steps of 128, the whole command",
           "at most", 15.0, "s", f"{PICTURES}:split_mnist"),
    Figure("over_loader", "a usual loop's step (per-sample loader, EWC in the loss) over ours",
           "at least", 5.0, "x", f"{PICTURES}:over_loader", ("best",)),
    Figure("over_loader_float32", "the same, ours in float32 like the usual loop's",
           "at least", None, "x", f"{PICTURES}:over_loader", ("float32",)),
    *(Figure(f"progressive_{n}", f"PPO's time per step in column {n} over column 1, on noise",
             "at most", goal, "x", f"{PROGRESSIVE}:column", (n, "pnn"))
      for n, goal in ((2, 1.8), (5, 2.5), (10, 4.0))),
    *(Figure(f"pathnet_{n}", f"a step on 256 samples of {n} paths over a plain net's, as many MACs",
             "at most", 1.3, "x", f"{PATHNET}:step", (n,))
      for n in (1, 8, 64)),
)
# fmt: on
