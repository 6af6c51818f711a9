"""Make the runs that `table.py` compares: a source once for each seed, then every arm of each pair.

    python configs/results/pairs/make_runs.py RUNS [precision=bf16 threads=1 KEY=VALUE...]
        [--pairs p1,p3] [--arms b1,b3,pnn] [--seeds 0,1,2] [--jobs 2]

By `configs/pair_*.yaml`, into `RUNS/<pair>_<arm>/seed<k>`; sources, which are baseline 1 of another
game, into `RUNS/<pair>_source/seed<k>`: two columns and baselines 2 and 3 of a seed go on from it.
PathNet learns the source by itself. The pair of Freeway has visits of 150,000 steps, as in the
files; the others, which begin to be learned at once, of 90,000. The last pair is a control: what
the source has learned should serve its target as it is. KEY=VALUE goes to every run, but for what
makes it its arm: 120 runs and 6 sources, 2 to 9 minutes each (PathNet's more) on a core with units
for bfloat16 (on others leave `precision=bf16` out). What is done is not made again: stopped, the
same command goes on. What runs print is in RUNS/*.log.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pair_arms import ARMS, PAIRS  # beside this file

from clrl.errors import ClrlError
from clrl.run.config import differences, load_config
from clrl.run.stop import Stopped, StopSignals
from clrl.study.processes import Job, in_processes

CONFIGS = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, help="where they go")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="for every run")
    parser.add_argument("--pairs", default=",".join(PAIRS), help="default: %(default)s")
    parser.add_argument("--arms", default=",".join(ARMS), help="default: %(default)s")
    parser.add_argument("--seeds", default="0,1,2", help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; then threads=1")
    args = parser.parse_intermixed_args()
    if args.jobs < 1:
        parser.error(f"--jobs is {args.jobs}: expected 1 or more")
    if not all(seed.isdecimal() for seed in args.seeds.split(",")):
        parser.error(f"--seeds is {args.seeds!r}: expected numbers with commas between them")
    lists = (args.pairs.split(","), args.arms.split(","), map(int, args.seeds.split(",")))
    pairs, arms, seeds = (list(dict.fromkeys(one)) for one in lists)  # each once
    for name, known in [*((x, PAIRS) for x in pairs), *((x, ARMS) for x in arms)]:
        if name not in known:
            parser.error(f"{name!r}: expected one of {', '.join(known)}")
    args.runs = args.runs.resolve()  # as it stands in configurations
    plan = [(pair, arm, seed) for seed in seeds for pair in pairs for arm in arms]
    sources = {
        job.path: job
        for pair, arm, seed in plan
        if ARMS[arm].shares
        for job in [source_job(args.runs, pair, seed, args.changes)]
    }
    rest = [arm_job(args.runs, *one, args.changes) for one in plan]
    stages = missing(list(sources.values())), missing(rest)
    args.runs.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []

    def ended(job: Job, problem: str) -> None:
        print(f"{job.title}: {problem or 'done'}", flush=True)
        if problem:
            failed.append(job.title)

    with StopSignals() as signals:
        for stage in stages:
            if not failed:
                in_processes(stage, args.jobs, signals, ended)
    if failed:
        raise ClrlError(f"failed: {', '.join(failed)}; see {args.runs}/*.log")


def source_job(runs: Path, pair: str, seed: int, changes: list[str]) -> Job:
    """Return the run that learns a pair's source; pairs that begin alike share it."""
    source, _, own = PAIRS[pair]
    first = next(k for k, p in PAIRS.items() if (p.source, p.changes) == (source, own))
    tasks = f"sequence.tasks=[{source}]"
    return job_of(runs, f"{first}_source", ARMS["b1"].file, seed, [tasks, *own, *changes])


def arm_job(runs: Path, pair: str, name: str, seed: int, changes: list[str]) -> Job:
    (source, target, own), arm = PAIRS[pair], ARMS[name]
    tasks = f"sequence.tasks=[{target}]" if arm.alone else f"sequence.tasks=[{source}, {target}]"
    settings = [tasks, *own, *changes, *arm.settings]
    if arm.shares:
        settings.append(f"sequence.pretrained={source_job(runs, pair, seed, changes).path.parent}")
    return job_of(runs, f"{pair}_{name}", arm.file, seed, settings)


def job_of(runs: Path, name: str, file: str, seed: int, changes: list[str]) -> Job:
    config = load_config(CONFIGS / f"{file}.yaml", [*changes, f"name={name}", f"seed={seed}"])
    return Job(f"{name}, seed {seed}", runs / name / f"seed{seed}", config, runs / f"{name}.log")


def missing(jobs: list[Job]) -> list[Job]:
    """Return the jobs that are not done.

    Raises:
        ClrlError: one was begun with other settings.
    """
    for job in jobs:
        config = job.path / "config.yaml"
        if config.exists() and (changed := differences(load_config(config), job.config)):
            raise ClrlError(f"{job.path} was made otherwise ({'; '.join(changed)}): delete it", 2)
    return [job for job in jobs if not (job.path / "summary.json").exists()]


if __name__ == "__main__":
    try:
        main()
    except (ClrlError, Stopped) as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
