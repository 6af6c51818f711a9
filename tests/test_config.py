"""Configurations: what is read, what is refused and how, and what tells two of them apart."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from pathlib import Path

import pytest
import yaml

from clrl.agents.a2c import A2C
from clrl.agents.ppo import PPO
from clrl.method import Method
from clrl.methods.ewc import EWC
from clrl.methods.si import SI
from clrl.nets.bodies import BODIES, body
from clrl.run import yaml_safe
from clrl.run.config import (
    PROTECTED,
    Config,
    config_hash,
    differences,
    load_config,
    protected,
    to_dict,
    to_yaml,
)
from clrl.run.typed import Reader
from clrl.types import ClrlError, Conv, Linear

BASE = """
name: base
sequence: {tasks: [Freeway, Breakout], steps: 4_000}
agent: {name: ppo, n_envs: 8, n_steps: 64, learning_rate: 5e-4}
method: {name: ewc, strength: 100}
net: {body: a3c, heads: per_task}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def write(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(text)
    return path


def refused(path: Path, *overrides: str) -> str:
    """Return the message of a refusal, which has exit code 2."""
    with pytest.raises(ClrlError) as caught:
        load_config(path, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


# ------------------------------------------------------------------------------------ reading


def test_a_file_becomes_typed_sections(base: Path) -> None:
    config = load_config(base)
    assert config.sequence.tasks == ("Freeway", "Breakout")
    assert config.sequence.steps == 4000 and isinstance(config.sequence.steps, int)
    assert isinstance(config.agent, PPO) and config.agent.learning_rate == 0.0005
    assert isinstance(config.method, EWC) and config.method.strength == 100.0
    assert config.protocol.preset == "classic" and config.protocol.noop_max == 30
    assert (config.checkpoint.every, config.checkpoint.keep) == (50_000, 2)
    assert (config.device, config.precision, config.threads, config.seed) == (
        "auto",
        "float32",
        0,
        0,
    )


def test_overrides_replace_single_keys_whole_sections_and_lists(base: Path) -> None:
    config = load_config(
        base,
        [
            "agent.n_envs=4",
            "agent.learning_rate=1e-3",
            "method={name: finetune}",
            "sequence.tasks=[Pong, Pong]",
            "tracking.tags=[a, 'no']",
            "protocol.sticky=0.25",
            "name=other",
        ],
    )
    assert isinstance(config.agent, PPO)
    assert (config.agent.n_envs, config.agent.learning_rate) == (4, 1e-3)
    assert type(config.method) is Method
    assert config.sequence.tasks == ("Pong", "Pong")
    assert config.tracking.tags == ("a", "no")
    assert (config.protocol.sticky, config.protocol.noop_max) == (0.25, 30)
    assert config.name == "other"


def test_the_agent_and_the_method_are_fresh_in_every_configuration(base: Path) -> None:
    first, second = load_config(base), load_config(base)
    assert first.agent is not second.agent and first.method is not second.method


def test_whole_numbers_may_be_written_as_1e6_or_with_underscores(base: Path) -> None:
    assert load_config(base, ["sequence.steps=1e6"]).sequence.steps == 1_000_000
    assert load_config(base, ["sequence.steps=2_000_000"]).sequence.steps == 2_000_000


@pytest.mark.parametrize("word", ["inf", ".inf"])
def test_infinity_may_be_written_as_people_do(word: str, base: Path) -> None:
    assert load_config(base, [f"agent.max_grad_norm={word}"]).agent.max_grad_norm == math.inf
    with pytest.raises(ClrlError, match=r"max_grad_norm is 'infin': expected a number"):
        load_config(base, ["agent.max_grad_norm=infin"])


def test_an_empty_section_means_its_defaults(base: Path) -> None:
    assert load_config(base, ["tracking="]).tracking == load_config(base).tracking


# ----------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("agent.learning_rte=1", ["agent.learning_rte", "did you mean 'learning_rate'"]),
        ("sede=1", ["sede", "did you mean 'seed'"]),
        ("agent.learning_rate=fast", ["agent.learning_rate", "'fast'", "a number"]),
        ("agent.n_envs=1.5", ["agent.n_envs", "1.5", "a whole number"]),
        ("agent.n_envs=true", ["agent.n_envs", "true", "a whole number"]),
        ("agent.n_envs='8'", ["agent.n_envs", "'8'", "a whole number"]),
        ("agent.gamma=1.5", ["agent.gamma", "1.5", "0 to 1"]),
        ("agent.name=pp0", ["agent.name", "'pp0'", "did you mean 'ppo'"]),
        ("method.name=EWCC", ["method.name", "'EWCC'", "did you mean 'ewc'"]),
        ("method=ewc", ["method", "'ewc'", "{name: "]),
        ("method.strength=.nan", ["method.strength", "nan", "a number"]),
        ("net.body=natur", ["net.body", "'natur'", "did you mean 'nature'"]),
        ("net.hidden=[3]", ["net.hidden", "[3]", "mlp"]),
        ("net.heads=shard", ["net.heads", "'shard'", "did you mean 'shared'"]),
        ("sequence.steps=0", ["sequence.steps", "is 0", "above 0"]),
        ("sequence.tasks=[]", ["sequence.tasks", "at least one"]),
        ("sequence.tasks=Pong", ["sequence.tasks", "'Pong'", "a list"]),
        ("sequence.tasks=[Pong, 3]", ["sequence.tasks[1]", "is 3", "text"]),
        ("sequence={steps: 5, name: quik3}", ["sequence.name", "'quik3'", "'quick3'"]),
        ("sequence={steps: 5}", ["sequence", "name", "tasks"]),
        ("sequence.name=quick3", ["sequence", "one of name"]),
        ("protocol.preset=clasic", ["protocol.preset", "'clasic'", "did you mean 'classic'"]),
        ("protocol.sticky=2", ["protocol.sticky", "2.0"]),
        ("protocol=classic", ["protocol", "'classic'", "preset"]),
        ("evaluation.episodes=0", ["evaluation.episodes", "is 0"]),
        ("evaluation.every=-1", ["evaluation.every", "-1", "0 or more"]),
        ("tracking.wandb=off", ["tracking.wandb", "'off'", "'disabled'"]),
        ("tracking.tensorboard=yes", ["tracking.tensorboard", "'yes'", "true or false"]),
        ("checkpoint.every=0", ["checkpoint.every", "is 0"]),
        ("device=gpu", ["device", "'gpu'", "'cuda'"]),
        ("precision=fp16", ["precision", "'fp16'", "'bf16'"]),
        ("seed=-1", ["seed", "-1"]),
        ("seed=null", ["seed", "empty", "a whole number"]),
        ("name=../elsewhere", ["name", "'../elsewhere'", "letters"]),
        ("name=<script>", ["name", "'<script>'", "letters"]),
        ("name=7", ["name", "is 7", "text"]),
    ],
)
def test_a_bad_value_is_told_in_one_line(base: Path, override: str, told: list[str]) -> None:
    message = refused(base, override)
    assert len(message.splitlines()) == 1
    assert "command line: " in message
    for part in told:
        assert part in message, message


def test_a_bad_value_in_the_file_names_the_file(base: Path) -> None:
    base.write_text(BASE.replace("n_steps", "n_step"))
    expected = "agent.n_step is not a key that exists here; did you mean 'n_steps'?"
    assert refused(base) == f"{base}: {expected}"


def test_nan_is_no_number() -> None:
    reader = Reader("x.yaml")
    assert reader.value(float, float("nan"), "a.b") is None
    assert reader.problems == ["x.yaml: a.b is nan: expected a number"]


def test_every_problem_is_told_each_in_its_line(base: Path) -> None:
    base.write_text(BASE.replace("n_envs: 8", "n_envs: many").replace("a3c", "a4c") + "sede: 1\n")
    lines = refused(base, "evaluation.every=often").splitlines()
    assert len(lines) == 4
    for key in ("agent.n_envs", "net.body", "sede", "evaluation.every"):
        assert sum(f": {key} " in line for line in lines) == 1


def test_missing_keys_are_named(tmp_path: Path) -> None:
    lines = refused(
        write(tmp_path, "name: x\nmethod: {}\nsequence: {tasks: [Pong]}\n")
    ).splitlines()
    assert [line.split()[1] for line in lines] == ["sequence.steps", "agent", "method.name"]


def test_another_method_drops_the_settings_of_the_one_before(
    base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_config(base, ["method.name=ewc"]).method == EWC(strength=100)
    assert not caplog.messages
    assert load_config(base, ["method.name=si"]).method == SI()
    assert caplog.messages == ["method.name=si: settings of ewc are dropped (strength: 100)"]
    assert load_config(base, ["method.name=si", "method.strength=3"]).method == SI(strength=3)
    assert type(load_config(base, ["method.name=finetune"]).method) is Method


@pytest.mark.parametrize("override", ["seed", "=3", "a..b=1", "seed.a=1", "agent.n_envs=[1"])
def test_an_override_that_cannot_be_applied_is_refused(base: Path, override: str) -> None:
    message = refused(base, override)
    assert "command line: " in message and len(message.splitlines()) == 1


def test_a_range_check_of_an_agent_is_told_with_its_key(base: Path) -> None:
    message = refused(base, "agent.batch_size=7")  # 8 x 64 = 73 x 7 + 1
    assert message.startswith("command line: agent.batch_size is 7: of 8 x 64 samples")
    assert "minibatch of one" in message


# -------------------------------------------------------------------------------- bad files


def test_a_missing_file_names_the_nearest(base: Path) -> None:
    (base.parent / "smoke.yaml").write_text("")
    message = refused(base.parent / "smok.yaml")
    assert "no such file" in message and "smoke.yaml" in message


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "seed: 1\nname: x\nseed: 2\n",
            ":3: not a valid configuration: the key 'seed' comes twice",
        ),
        ("agent: {name: ppo, name: a2c}\n", "the key 'name' comes twice"),
        ("name:\n\tx\n", "indent with spaces"),
        ("a: &x [1]\nb: *x\n", ":1: not a valid configuration: anchors and aliases"),
        ("a: !!python/object/apply:os.system ['true']\n", "'!!python/object/apply:os.system'"),
        ("a: !!python/name:os.system\n", "'!!python/name:os.system' is not accepted"),
        ("a: !mine 3\n", "'!mine' is not accepted"),
        ("- a\n- b\n", "expected 'key: value' lines at the top level, found a list"),
        ("", "expected 'key: value' lines at the top level, found nothing"),
        ("just text", "found 'just text'"),
        ("a: [1\n", "not a valid configuration"),
        ("a: 1\n---\nb: 2\n", "not a valid configuration"),
        ("? [a]\n: 1\n", "a key must be plain text"),
        ("a: " + "9" * 5000, "not a valid configuration"),
        ("[" * 50_000, "nested too deep"),
        ("a: " + "x" * 1_000_001, "larger than 1,000,000 bytes"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(
    tmp_path: Path, content: str, told: str
) -> None:
    path = write(tmp_path, content)
    message = refused(path)
    assert told in message and message.startswith(str(path)) and len(message.splitlines()) == 1


def test_no_python_tag_runs_code(tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    tag = "!!python/object/apply:pathlib.Path.touch"
    path = write(tmp_path, f"a: {tag} [!!python/object/apply:pathlib.Path ['{sentinel}']]\n")
    refused(path)
    assert not sentinel.exists()


def test_a_bomb_of_aliases_is_refused_before_it_grows(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    assert "anchors and aliases" in refused(write(tmp_path, "\n".join(lines)))


def test_a_folder_a_device_and_bytes_are_refused(tmp_path: Path) -> None:
    assert "is a folder" in refused(tmp_path)
    assert "not a regular file" in refused(Path("/dev/zero"))
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\xfa")
    assert "UTF-8" in refused(path)


# ------------------------------------------------------------------------------- YAML's traps


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-.5", -0.5),
        (".inf", float("inf")),
        ("4_000", 4000),
        ("010", 10),
        ("+3", 3),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("0x10", "0x10"),
        ("1e", "1e"),
        ("'1'", "1"),
        ("{on: off}", {"on": "off"}),
        ("{1: a, true: b, null: c}", {"1": "a", "true": "b", "null": "c"}),
        ("{<<: {a: 1}}", {"<<": {"a": 1}}),
    ],
)
def test_yaml_says_what_it_seems_to_say(text: str, value: object) -> None:
    parsed = yaml_safe.parse(text, "test")
    assert parsed == value and type(parsed) is type(value)


def test_what_is_dumped_is_read_back_here_and_by_plain_yaml() -> None:
    data = {
        "floats": [1e-5, 0.0005, 1e20, float("inf"), -2.0],
        "words": ["on", "no", "1e-4", "010", "1_0", "null", "", "true", "0x1", "a: b", "é", "*x"],
        "section": {"none": None, "yes": True, "n": 3},
    }
    text = yaml_safe.dump(data)
    assert yaml_safe.parse(text, "test") == data
    assert yaml.safe_load(text) == data  # other tools read run folders with YAML 1.1 rules


# ------------------------------------------------------------------- resolved, hash, differences


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["agent={name: a2c, n_envs: 3}", "method={name: frozen}", "agent.max_grad_norm=.inf"],
        [
            "sequence={name: quick3, steps: 7}",
            "net={body: mlp, hidden: [3, 4]}",
            "tracking.tags=[x]",
        ],
        [
            "protocol={preset: machado, sticky: 0.1}",
            "agent.learning_rate=1e-7",
            "seed=123456789012",
        ],
    ],
)
def test_the_resolved_configuration_reads_back_as_the_same(
    base: Path, tmp_path: Path, overrides: list[str]
) -> None:
    config = load_config(base, overrides)
    again = load_config(write(tmp_path, to_yaml(config)))
    assert again == config
    assert to_dict(again) == to_dict(config)
    assert config_hash(again) == config_hash(config)


def test_the_resolved_configuration_says_everything(base: Path) -> None:
    resolved = to_dict(load_config(base, ["agent={name: a2c}"]))
    assert set(resolved) == {f.name for f in dataclasses.fields(Config)}
    agent_fields = {f.name for f in dataclasses.fields(A2C) if f.init}
    assert set(resolved["agent"]) == agent_fields | {"name"}
    assert {"sticky", "life_loss_ends", "actions", "max_frames"} <= set(resolved["protocol"])


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("name=other", True),
        ("tracking.wandb=offline", True),
        ("checkpoint.keep=5", True),
        ("checkpoint.every=1000", True),  # a run does not depend on when it is saved
        ("seed=1", False),
        ("agent.gamma=0.9", False),
        ("method.strength=1", False),
        ("sequence.tasks=[Breakout, Freeway]", False),
        ("sequence.steps=4001", False),
        ("protocol.sticky=0.25", False),
        ("net.heads=shared", False),
        ("evaluation.episodes=7", False),
        ("precision=bf16", False),
    ],
)
def test_the_hash_tells_apart_what_can_change_a_result(
    base: Path, override: str, same: bool
) -> None:
    before, after = config_hash(load_config(base)), config_hash(load_config(base, [override]))
    assert (before == after) is same
    assert len(before) == hashlib.sha256().digest_size * 2


def test_differences_name_each_key_with_both_values(base: Path) -> None:
    old = load_config(base)
    new = load_config(base, ["agent.n_envs=4", "sequence.steps=5_000", "tracking.tags=[x]"])
    lines = differences(old, new)
    assert lines == [
        "sequence.steps: 4000 -> 5000",
        "agent.n_envs: 8 -> 4",
        'tracking.tags: [] -> ["x"]',
    ]
    assert differences(to_dict(old), new) == lines
    assert differences(old, load_config(base)) == []


@pytest.mark.parametrize(
    ("override", "kept"),
    [
        ("sequence.tasks=[Breakout, Freeway]", True),
        ("sequence.steps=1", True),
        ("agent={name: a2c}", True),
        ("method.strength=1", True),
        ("net.body=nature", True),
        ("protocol.sticky=0.25", True),
        ("seed=1", True),
        ("agent.n_envs=4", False),
        ("device=cpu", False),
        ("threads=1", False),
        ("tracking.wandb=offline", False),
        ("evaluation.every=1", False),
        ("evaluation.policy=greedy", True),
    ],
)
def test_a_resumed_run_keeps_what_makes_it_that_run(base: Path, override: str, kept: bool) -> None:
    lines = differences(load_config(base), load_config(base, [override]))
    assert lines
    assert bool(protected(lines)) is kept


def test_protected_keys_exist(base: Path) -> None:
    resolved = to_dict(load_config(base))
    for key in PROTECTED:
        value: object = resolved
        for part in key.split("."):
            assert isinstance(value, dict) and part in value, key
            value = value[part]


# ------------------------------------------------------------------------------------- bodies


def test_bodies_are_the_papers() -> None:
    nature = (Conv(32, 8, 4), Conv(64, 4, 2), Conv(64, 3, 1), Linear(512))
    assert body("nature") == nature  # Mnih et al. 2015
    assert body("a3c") == (Conv(16, 8, 4), Conv(32, 4, 2), Linear(256))  # Mnih et al. 2016
    pnn = (Conv(12, 8, 4), Conv(12, 4, 2), Conv(12, (3, 4), 1), Linear(256))
    assert body("pnn") == pnn  # Rusu et al. 2016
    assert body("mlp") == (Linear(400), Linear(400))
    assert body("mlp", [8]) == (Linear(8),)
    for name in BODIES:
        assert body(name)
