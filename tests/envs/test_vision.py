"""Image tasks: which images, which labels, and how the sequences number them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from clrl.envs.datasets import load
from clrl.envs.vision import (
    IMAGE_SEQUENCES,
    Scenario,
    VisionTask,
    build_image_sequence,
    is_image_entry,
    require_data,
)
from clrl.types import ClrlError, TaskSequence


def build(
    *entries: str, scenario: Scenario = "task", shared: bool = False, validation: float = 0.0
) -> TaskSequence:
    return build_image_sequence(entries, 1, scenario, shared, validation)


def task(entry: str, **options: Any) -> VisionTask:
    """Return the only task of a sequence."""
    (only,) = build(entry, **options).tasks
    assert isinstance(only, VisionTask)
    return only


def numbering(sequence: TaskSequence) -> list[tuple[int, tuple[int, ...], Any]]:
    """Return width, outputs in the order of the classes, and legal outputs of each task."""
    return [(t.n_outputs, t.outputs, t.legal) for t in sequence.tasks if isinstance(t, VisionTask)]


# ----------------------------------------------------------------------- tasks and scenarios


def test_repeats_are_visits_to_the_same_task() -> None:
    sequence = build_image_sequence(["mnist:0+1", "digits", "MNIST:0-1"], 2, "task", False)
    assert [(t.id, t.name) for t in sequence.tasks] == [(0, "mnist:0+1"), (1, "digits")]
    assert sequence.visits == (0, 1, 0) * 2


def test_a_head_a_task_is_as_wide_as_its_classes() -> None:
    sequence = build("mnist:8+9", "mnist:3+2+1", "mnist")
    assert numbering(sequence) == [
        (2, (0, 1), None),
        (3, (0, 1, 2), None),
        (10, tuple(range(10)), None),
    ]


def test_domains_share_their_outputs() -> None:
    sequence = build("mnist:8+9", "cifar10:3+2", scenario="domain", shared=True)
    assert numbering(sequence) == [(2, (0, 1), None)] * 2


@pytest.mark.parametrize("scenario", ["task", "class"])
def test_a_head_for_all_numbers_classes_as_they_appear(scenario: Scenario) -> None:
    sequence = build("mnist:8+9", "mnist:2+8", "digits:0+8", scenario=scenario, shared=True)
    assert numbering(sequence) == [
        (5, (0, 1), (0, 1)),
        (5, (2, 0), (0, 2)),  # 8 has been seen
        (5, (3, 4), (3, 4)),  # another data set's 8 has not
    ]
    assert numbering(build("mnist", scenario=scenario, shared=True)) == [
        (10, tuple(range(10)), None)
    ]


def test_a_permutation_makes_other_classes_and_noise_does_not() -> None:
    entries = IMAGE_SEQUENCES["permuted_mnist"].entries()
    permuted = build(*entries, scenario="class", shared=True)
    for number, (width, outputs, legal) in enumerate(numbering(permuted)):
        expected = tuple(range(10 * number, 10 * number + 10))
        assert (width, outputs, legal) == (100, expected, expected)
    same = build(
        "mnist:1+2", "mnist:1+2,noise=0.5", "mnist:1+2,permutation=0", scenario="class", shared=True
    )
    assert numbering(same) == [(2, (0, 1), None)] * 3


@pytest.mark.parametrize(
    ("entries", "scenario", "shared", "words"),
    [
        (("mnist:0+1", "mnist:2+3"), "class", False, "which is to be found: set net.heads=shared"),
        (("mnist:0+1", "mnist:2+3"), "domain", False, "same outputs: set net.heads=shared"),
        (("mnist:0+1", "mnist:2-4"), "domain", True, "'mnist:0\\+1' has 2, 'mnist:2-4' has 3"),
        (("mnist:0",), "task", False, "two or more"),
        (("mnist:0", "mnist:1"), "domain", True, "two or more"),
        (("mnist",), "clas", True, "did you mean 'class'"),
        ((), "task", False, "at least one"),
    ],
)
def test_what_does_not_go_together_is_refused(
    entries: tuple[str, ...], scenario: Any, shared: bool, words: str
) -> None:
    with pytest.raises(ClrlError, match=words) as caught:
        build(*entries, scenario=scenario, shared=shared)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("validation", [-0.1, 1.0, float("nan")])
def test_a_share_held_out_is_a_share(validation: float) -> None:
    with pytest.raises(ClrlError, match="held out: expected") as caught:
        build("mnist", validation=validation)
    assert caught.value.exit_code == 2


def test_a_single_class_can_be_learned_among_others() -> None:
    sequence = build("mnist:4", "mnist:7", scenario="class", shared=True)
    assert numbering(sequence) == [(2, (0,), (0,)), (2, (1,), (1,))]


def test_names_of_data_sets_are_told_from_games() -> None:
    assert is_image_entry("mnist:0+1") and is_image_entry("CIFAR-10")
    assert not is_image_entry("Freeway") and not is_image_entry("Pong-noisy:mode=1")


def test_data_that_is_missing_is_told_before_anything_is_read(published: Any) -> None:
    published.mnist()
    require_data(build("mnist:0+1", "digits"))
    with pytest.raises(ClrlError, match="clrl fetch cifar10") as caught:
        require_data(build("mnist:0+1", "cifar10:0+1"))
    assert caught.value.exit_code == 3
    with pytest.raises(ClrlError, match="clrl fetch cifar10"):
        task("cifar10:0+1").examples("test")


# ------------------------------------------------------------------------------------ examples


def test_a_task_has_the_images_of_its_classes_relabelled(published: Any) -> None:
    published.mnist()
    for split, part in (("train", "train"), ("test", "t10k")):
        images, labels = published.truth[f"mnist/{part}"]
        x, label = task("mnist:7+3").examples(split)
        assert (x.dtype, label.dtype) == (torch.uint8, torch.int64)
        chosen = (labels == 7) | (labels == 3)
        np.testing.assert_array_equal(x[:, 0], images[chosen])
        np.testing.assert_array_equal(label, np.where(labels[chosen] == 7, 0, 1))


def test_labels_are_the_outputs_of_a_shared_head(published: Any) -> None:
    published.mnist()
    sequence = build("mnist:8+9", "mnist:2+8", scenario="class", shared=True)
    second = sequence.tasks[1]
    assert isinstance(second, VisionTask)
    original = published.truth["mnist/t10k"][1]
    original = original[(original == 2) | (original == 8)]
    np.testing.assert_array_equal(second.examples("test").label, np.where(original == 8, 0, 2))


def test_the_whole_of_a_data_set_is_not_copied(published: Any) -> None:
    published.mnist()
    data = load("mnist")
    for entry in ("mnist", "mnist:permutation=0"):
        x = task(entry).examples("train").x
        assert x.data_ptr() == data.train.x.data_ptr()


def test_no_transform_touches_the_data_set(published: Any) -> None:
    published.mnist()
    before = load("mnist").train.x.clone()
    for entry in ("mnist:noise=0.5", "mnist:permutation=1", "mnist:0+1,noise=1"):
        task(entry).examples("train")
    assert torch.equal(load("mnist").train.x, before)


def test_a_permutation_is_one_of_the_places_for_every_image(published: Any) -> None:
    published.mnist()
    published.cifar("cifar10")
    plain = load("mnist").train.x.flatten(1)
    orders = []
    for number in (1, 2):
        x = task(f"mnist:permutation={number}").examples("train").x.flatten(1)
        again = task(f"mnist:permutation={number}").examples("train").x.flatten(1)
        assert torch.equal(x, again)
        # 60 random bytes a place: the column of values says which place it was
        places = {bytes(column): place for place, column in enumerate(plain.T.numpy())}
        order = [places[bytes(column)] for column in x.T.numpy()]
        assert sorted(order) == list(range(784))
        orders.append(torch.tensor(order))
        test = task(f"mnist:permutation={number}").examples("test").x.flatten(1)
        assert torch.equal(test, load("mnist").test.x.flatten(1)[:, orders[-1]])
    for a, b in ((*orders,), (orders[0], torch.arange(784)), (orders[1], torch.arange(784))):
        assert (a != b).float().mean() > 0.95
    colour = task("cifar10:permutation=1").examples("test").x.flatten(2)
    source = load("cifar10").test.x.flatten(2)
    red = {bytes(column): place for place, column in enumerate(source[:, 0].T.numpy())}
    order = [red[bytes(column)] for column in colour[:, 0].T.numpy()]
    assert torch.equal(colour, source[:, :, order])  # all channels alike


def test_noise_makes_a_share_of_pixels_black_or_white(published: Any) -> None:
    published.mnist()
    plain = load("mnist").train.x
    grey = (plain > 0) & (plain < 255)
    for share in (0.1, 0.5):
        x = task(f"mnist:noise={share}").examples("train").x
        for value in (0, 255):  # 60 * 784 pixels: the standard error is 0.002
            assert (x == value)[grey].float().mean().item() == pytest.approx(share / 2, abs=0.01)
        kept = grey & (x != 0) & (x != 255)
        assert torch.equal(x[kept], plain[kept])


def test_noise_is_the_images_own_in_every_task_and_split_apart(published: Any) -> None:
    published.mnist()
    x, label = task("mnist:noise=0.5").examples("train")
    pair = task("mnist:4+6,noise=0.5").examples("train")
    assert torch.equal(pair.x, x[(label == 4) | (label == 6)])
    valid = task("mnist:noise=0.5", validation=0.5).examples("valid")
    rows = {bytes(image.numpy()) for image in x}
    assert {bytes(image.numpy()) for image in valid.x} < rows
    test = task("mnist:noise=0.5").examples("test").x
    assert (test == x[:30]).float().mean().item() < 0.3  # 1 / 8; over 1 / 2 if noise were the same


def test_a_validation_set_is_taken_from_the_training_set(published: Any) -> None:
    published.mnist()
    for entry, classes in (("mnist", 10), ("mnist:2+7", 2)):
        whole = task(entry).examples("train")
        held = task(entry, validation=0.34)  # two of six
        train, valid = held.examples("train"), held.examples("valid")
        assert train.label.bincount().tolist() == [4] * classes
        assert valid.label.bincount().tolist() == [2] * classes
        both = [bytes(image.numpy()) for image in (*train.x, *valid.x)]
        assert sorted(both) == sorted(bytes(image.numpy()) for image in whole.x)
        assert torch.equal(held.examples("test").x, task(entry).examples("test").x)
        assert (held.evaluated_split, task(entry).evaluated_split) == ("valid", "test")
    with pytest.raises(ClrlError, match="held_out") as caught:
        task("mnist").examples("valid")
    assert caught.value.exit_code == 2


def test_a_set_without_images_is_told(published: Any) -> None:
    published.cifar("cifar100")  # 30 images to test: labels up to 30 only
    with pytest.raises(ClrlError, match="no images") as caught:
        task("cifar100:80+90").examples("test")
    assert caught.value.exit_code == 3


def test_data_sets_in_one_sequence_have_one_shape(published: Any) -> None:
    published.mnist()
    published.cifar("cifar10")
    mnist, cifar, digits = build("mnist:0+1", "cifar10", "digits:0+1").tasks
    assert mnist.input_shape == cifar.input_shape == digits.input_shape == (3, 32, 32)
    assert isinstance(mnist, VisionTask) and isinstance(cifar, VisionTask)
    assert isinstance(digits, VisionTask)
    x = mnist.examples("test").x
    assert x.shape == (6, 3, 32, 32)
    source = task("mnist:0+1").examples("test").x
    assert torch.equal(x[:, :, 2:-2, 2:-2], source.repeat(1, 3, 1, 1))
    assert int(x.long().sum()) == 3 * int(source.long().sum())  # zeros around
    assert x.stride(1) == 0  # grey is repeated without memory
    assert torch.equal(
        digits.examples("test").x[:, 1:2, 12:20, 12:20], task("digits:0+1").examples("test").x
    )
    assert torch.equal(cifar.examples("test").x, load("cifar10").test.x)


# ----------------------------------------------------------------------- the ones that ship


@pytest.mark.parametrize("name", sorted(IMAGE_SEQUENCES))
@pytest.mark.parametrize(
    ("scenario", "shared"), [("task", False), ("task", True), ("domain", True), ("class", True)]
)
def test_every_sequence_that_ships_can_be_built_without_data(
    name: str, scenario: Scenario, shared: bool, published: Any
) -> None:
    entries = IMAGE_SEQUENCES[name].entries()
    sequence = build(*entries, scenario=scenario, shared=shared)
    assert [t.name for t in sequence.tasks] == list(entries)
    assert IMAGE_SEQUENCES[name].entries(3) == IMAGE_SEQUENCES[name].entries(3)
    for t in sequence.tasks:
        assert isinstance(t, VisionTask)
        assert max(t.outputs) < t.n_outputs
        assert t.legal is None or set(t.legal) == set(t.outputs)


def test_sequences_are_those_of_the_literature() -> None:
    pairs = ["0+1", "2+3", "4+5", "6+7", "8+9"]
    for name in ("mnist", "cifar10", "digits"):
        entries = IMAGE_SEQUENCES[f"split_{name}"].entries()
        assert entries == tuple(f"{name}:{pair}" for pair in pairs)
    assert IMAGE_SEQUENCES["split_cifar100"].entries()[::9] == ("cifar100:0-9", "cifar100:90-99")
    assert IMAGE_SEQUENCES["datasets3"].entries() == ("mnist", "notmnist", "cifar10")
    permuted = IMAGE_SEQUENCES["permuted_mnist"].entries()
    assert len(permuted) == 10 and permuted[0] == "mnist:permutation=0"


def test_binary_mnist_draws_two_noisy_pairs_of_four_digits() -> None:
    drawn = {IMAGE_SEQUENCES["binary_mnist"].entries(seed) for seed in range(20)}
    assert len(drawn) > 15
    for entries in drawn:
        first, second = (t for t in build(*entries).tasks if isinstance(t, VisionTask))
        assert len({*(first.classes or ()), *(second.classes or ())}) == 4
        assert first.noise == second.noise == 0.5


def test_split_digits_runs_as_it_comes() -> None:
    sequence = build(*IMAGE_SEQUENCES["split_digits"].entries(), validation=0.2)
    for t in sequence.tasks:
        assert isinstance(t, VisionTask)
        sizes = {split: len(t.examples(split).x) for split in ("train", "valid", "test")}
        assert sizes["train"] > sizes["valid"] > 50 and sizes["test"] > 60
        assert t.examples("train").label.unique().tolist() == [0, 1]
