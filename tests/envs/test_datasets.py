"""Data sets: found, read as published, kept in memory once, and never downloaded unasked."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clrl.envs import datasets
from clrl.envs.datasets import DATASETS, canonical, folder, held_out, load, missing, require
from clrl.types import ClrlError

REAL = os.environ.get("CLRL_DATA")


def needs_real(name: str) -> Any:
    """Skip a test where a published data set is not at hand."""
    there = REAL and all((Path(REAL) / file).is_file() for file in DATASETS[name].files)
    return pytest.mark.skipif(not there, reason=f"CLRL_DATA has no {name}: clrl fetch {name}")


def refused(name: str) -> str:
    """Return the one line with which a data set is refused, as missing or damaged data."""
    with pytest.raises(ClrlError) as caught:
        load(name)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------ where and which


def test_the_folder_is_the_one_named_or_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for value, expected in (("/data/x", "/data/x"), ("~/x", "/home/someone/x")):
        monkeypatch.setenv("CLRL_DATA", value)
        assert folder() == Path(expected)
    monkeypatch.delenv("CLRL_DATA")
    assert folder() == Path("/home/someone/.cache/clrl")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert folder() == Path("/cache/clrl")


def test_names_may_be_written_as_people_do() -> None:
    for given in ("cifar10", "CIFAR-10", "cifar_10"):
        assert canonical(given) == "cifar10"
    assert canonical("notMNIST") == "notmnist"


@pytest.mark.parametrize(("given", "told"), [("mnits", "'mnist'"), ("Freeway", "digits, mnist")])
def test_an_unknown_data_set_is_refused_with_the_nearest(given: str, told: str) -> None:
    assert told in refused(given)


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "digits"])
def test_a_missing_file_is_named_with_the_command_that_brings_it(published: Any, name: str) -> None:
    told = refused(name)
    assert str(published.root / DATASETS[name].files[0]) in told
    assert f"clrl fetch {name}" in told and "CLRL_DATA" in told
    assert missing(name) == list(DATASETS[name].files)
    assert not list(published.root.iterdir())  # no download either
    with pytest.raises(ClrlError):
        require(name)


def test_one_missing_file_of_four_is_missing(published: Any) -> None:
    published.mnist()
    require("mnist")
    (published.root / "mnist/t10k-labels-idx1-ubyte.gz").unlink()
    assert "t10k-labels" in refused("mnist")


# ------------------------------------------------------------------------------------ as written


def test_mnist_is_what_was_written(published: Any) -> None:
    published.mnist()
    data = load("MNIST")
    for part, examples in (("train", data.train), ("t10k", data.test)):
        images, labels = published.truth[f"mnist/{part}"]
        assert (examples.x.dtype, examples.label.dtype) == (torch.uint8, torch.int64)
        np.testing.assert_array_equal(examples.x.numpy(), images[:, None])
        np.testing.assert_array_equal(examples.label.numpy(), labels)


def test_a_data_set_is_read_once(published: Any) -> None:
    published.mnist()
    first = load("mnist")
    assert load("mnist").train.x is first.train.x


def test_files_may_lie_there_unpacked(published: Any) -> None:
    published.mnist()
    for path in (published.root / "mnist").iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    np.testing.assert_array_equal(load("mnist").test.x[:, 0], published.truth["mnist/t10k"][0])


def test_cifar10_is_its_five_batches_in_order(published: Any) -> None:
    published.cifar("cifar10")
    data = load("cifar10")
    batches = [published.truth[f"cifar10/data_batch_{i}.bin"] for i in range(1, 6)]
    np.testing.assert_array_equal(data.train.x, np.concatenate([x for x, _ in batches]))
    np.testing.assert_array_equal(data.train.label, np.concatenate([y for _, y in batches]))
    images, labels = published.truth["cifar10/test_batch.bin"]
    np.testing.assert_array_equal(data.test.x, images)
    np.testing.assert_array_equal(data.test.label, labels)


def test_cifar100_has_its_fine_labels(published: Any) -> None:
    published.cifar("cifar100")
    data = load("cifar100")
    for file, examples in (("train.bin", data.train), ("test.bin", data.test)):
        images, labels = published.truth[f"cifar100/{file}"]
        np.testing.assert_array_equal(examples.x, images)
        np.testing.assert_array_equal(examples.label, labels)


# ------------------------------------------------------------------------------- own splits


def test_held_out_images_are_evenly_spaced_in_every_class() -> None:
    labels = np.array([0, 1] * 5 + [0] * 5)  # ten of class 0, five of class 1
    rows = [np.flatnonzero(labels == 0)[[4, 9]], np.flatnonzero(labels == 1)[[4]]]
    assert np.flatnonzero(held_out(labels, 0.2)).tolist() == sorted(np.concatenate(rows))
    assert not held_out(labels, 0.0).any()


def test_as_many_are_held_out_as_the_share_says() -> None:
    for hundredths in range(100):
        assert held_out(np.zeros(100, dtype=np.int64), hundredths / 100).sum() == hundredths


def test_notmnist_is_split_in_every_class(published: Any, to_idx: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (150, 28, 28), dtype=np.uint8)
    labels = np.repeat(np.arange(10, dtype=np.uint8), 15)
    (published.root / "notmnist").mkdir()
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        path = published.root / f"notmnist/t10k-{kind}-ubyte.gz"
        path.write_bytes(gzip.compress(to_idx(array), 1))
    data = load("notmnist")
    assert data.train.label.bincount().tolist() == [12] * 10
    assert data.test.label.bincount().tolist() == [3] * 10
    np.testing.assert_array_equal(data.test.x[:, 0], images[4::5])  # 15 a class: every fifth


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    train, test = load("digits")
    assert train.x.shape[1:] == test.x.shape[1:] == (1, 8, 8)
    assert len(train.x) + len(test.x) == len(pixels) == 1797
    counts = np.bincount(labels)
    assert test.label.bincount().tolist() == (counts // 5).tolist()
    assert (train.label.bincount() + test.label.bincount()).tolist() == counts.tolist()
    first = torch.tensor(pixels[0]).view(8, 8) * 255 / 16  # the first digit trains: a 0
    torch.testing.assert_close(train.x[0, 0].double(), first, atol=0.5, rtol=0)
    assert int(train.x.max()) == 255


def test_without_scikit_learn_digits_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert "pip install 'clrl[images]'" in refused("digits")


def test_without_the_extra_packages_everything_else_works(published: Any) -> None:
    published.mnist()
    program = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"sklearn", "pooch"}:
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
from clrl.envs import datasets, fetch, vision
assert datasets.missing("digits") == ["scikit-learn"]
assert len(datasets.load("mnist").train.x) == 60
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# -------------------------------------------------------------------------------- damaged


def test_a_damaged_file_is_named_with_its_remedy(published: Any) -> None:
    published.mnist()
    path = published.root / "mnist/train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    told = refused("mnist")
    assert str(path) in told and "delete that file and run: clrl fetch mnist" in told


def test_a_label_out_of_range_is_named(published: Any, to_idx: Any) -> None:
    published.mnist()
    labels = published.truth["mnist/t10k"][1].copy()
    labels[7] = 10
    path = published.root / "mnist/t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(to_idx(labels)))
    assert f"{path}: label 10 of image 7: expected 0..9" in refused("mnist")


@pytest.mark.parametrize(
    ("name", "place", "expected"),
    [
        ("cifar10", "cifar-10-batches-bin/data_batch_3.bin", 30),
        ("cifar10", "cifar-10-batches-bin/test_batch.bin", 30),
        ("cifar100", "cifar-100-binary/train.bin", 150),
        ("cifar100", "cifar-100-binary/test.bin", 30),
    ],
)
def test_a_file_that_ends_early_between_two_records_is_named(
    published: Any, name: str, place: str, expected: int
) -> None:
    published.cifar(name)
    path = published.root / place
    record = path.stat().st_size // expected
    path.write_bytes(path.read_bytes()[: -2 * record])
    assert f"{path}: {expected - 2} images: expected {expected}" in refused(name)


def test_as_many_labels_as_images(published: Any, to_idx: Any) -> None:
    published.mnist()
    path = published.root / "mnist/train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(to_idx(published.truth["mnist/train"][1][:-1])))
    assert f"{path}: 59 labels: expected 60" in refused("mnist")


# --------------------------------------------------------- the published ones, where at hand


@needs_real("mnist")
def test_the_real_mnist_has_its_known_counts_and_brightness() -> None:
    train, test = load("mnist")
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert train.label.bincount().tolist() == counts
    assert test.label.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    pixels = train.x.double() / 255  # the constants by which everyone normalises
    assert pixels.mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std().item() == pytest.approx(0.3081, abs=5e-5)


@needs_real("notmnist")
def test_the_real_notmnist_is_8000_and_2000() -> None:
    train, test = load("notmnist")
    assert train.label.bincount().tolist() == [800] * 10
    assert test.label.bincount().tolist() == [200] * 10


@needs_real("cifar10")
def test_the_real_cifar10_has_its_known_counts_and_colours() -> None:
    train, test = load("cifar10")
    assert train.label.bincount().tolist() == [5000] * 10
    assert test.label.bincount().tolist() == [1000] * 10
    means = train.x.float().mean(dim=(0, 2, 3)) / 255
    assert means.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4)
    datasets._load.cache_clear()  # 180 MB
