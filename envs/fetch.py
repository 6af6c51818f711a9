"""`clrl fetch`: bring a data set here, whole and as it was published, or change nothing."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from clrl.envs.datasets import DATASETS, canonical, folder, missing, paths, require
from clrl.types import ClrlError

__all__ = ["DOWNLOADS", "Download", "altered", "fetch"]


class Download(NamedTuple):
    """A published file."""

    url: str
    known_hash: str  # "sha256:..." or "md5:...": the published one
    files: tuple[str, ...]  # what it becomes, as in `Source.files`; several: members of a .tar.gz


MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"  # the mirror that torchvision uses
NOTMNIST = (  # by a commit's name, so that it stays what it is
    "https://raw.githubusercontent.com/davidflanagan/notMNIST-to-MNIST/"
    "17823f4d4a3acd8317c07866702d2eb2ac79c7a0"
)
CIFAR = "https://www.cs.toronto.edu/~kriz"

IDX_HASHES = {
    f"{MNIST}/train-images-idx3-ubyte.gz": (
        "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    f"{MNIST}/train-labels-idx1-ubyte.gz": (
        "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    f"{MNIST}/t10k-images-idx3-ubyte.gz": (
        "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    f"{MNIST}/t10k-labels-idx1-ubyte.gz": (
        "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
    f"{NOTMNIST}/t10k-images-idx3-ubyte.gz": (
        "sha256:70ae9e06201f2827e5b0a3781a3169d735dd2efc69996b9eeaee7f10ed4044d7"
    ),
    f"{NOTMNIST}/t10k-labels-idx1-ubyte.gz": (
        "sha256:1fa03836e01c862542f8eb83463bb951bebec6fcb3efa28dad748c6b38a9021b"
    ),
}


def _idx(name: str, base: str) -> tuple[Download, ...]:
    urls = {file: f"{base}/{Path(file).name}" for file in DATASETS[name].files}
    return tuple(Download(url, IDX_HASHES[url], (file,)) for file, url in urls.items())


DOWNLOADS: dict[str, tuple[Download, ...]] = {
    "digits": (),
    "mnist": _idx("mnist", MNIST),
    "notmnist": _idx("notmnist", NOTMNIST),
    "cifar10": (
        Download(
            f"{CIFAR}/cifar-10-binary.tar.gz",
            "md5:c32a1d4ab5d03f1284b67883e8d87530",
            DATASETS["cifar10"].files,
        ),
    ),
    "cifar100": (
        Download(
            f"{CIFAR}/cifar-100-binary.tar.gz",
            "md5:03b5dce01913d631647c71ecec9e9cb8",
            DATASETS["cifar100"].files,
        ),
    ),
}


def altered(name: str) -> list[Path]:
    """Return those files of a data set that are there, but not as they were published.

    Known are hashes of whole downloads: nothing is told of files that came in an archive, or that
    lie there unpacked.
    """
    hashes = {d.files[0]: d.known_hash for d in DOWNLOADS[canonical(name)] if len(d.files) == 1}
    places = zip(DATASETS[canonical(name)].files, paths(name), strict=True)
    there = [(path, hashes[file]) for file, path in places if file in hashes]
    return [
        path
        for path, known in there
        if path.suffix == ".gz" and path.is_file() and _hash(path, known.split(":")[0]) != known
    ]


def _hash(path: Path, kind: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"unreadable: {error}"
    return f"{kind}:{hashlib.new(kind, content, usedforsecurity=False).hexdigest()}"


def fetch(name: str) -> list[Path]:
    """Download what is missing of a data set; files that are there stay as they are.

    Everything is checked in a temporary folder first; then each file takes its place at once.

    Returns:
        The files that were written.

    Raises:
        ClrlError: with exit code 3 for an unknown data set, for content that is not as published,
            downloaded or there already, without a network, and where pooch (or, for digits,
            scikit-learn) is not installed; 1 for a disk that cannot be written.
    """
    name = canonical(name)
    if not DOWNLOADS[name]:
        require(name)  # it comes with a package
    absent, root, wrong = missing(name), folder(), altered(name)
    if absent:
        _bring(name, absent, root)
    if wrong:
        raise ClrlError(
            f"{wrong[0]} is not what was published: delete it and run: clrl fetch {name} "
            "(or leave it, if it is data of your own: it is read all the same)",
            3,
        )
    return [root / file for file in absent]


def _bring(name: str, absent: Sequence[str], root: Path) -> None:
    """Download the absent files of a data set."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as temporary:
            here = Path(temporary)
            ready: dict[str, Path] = {}
            for download in DOWNLOADS[name]:
                if not set(absent).isdisjoint(download.files):
                    ready |= _unpacked(download, _downloaded(name, download, here), here)
            for file in absent:
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                ready[file].replace(root / file)
    except OSError as error:
        raise ClrlError(
            f"cannot write data set {name!r} into {root}: {error.strerror or error}; "
            "set CLRL_DATA to a folder with room that you may write to"
        ) from error


def _downloaded(name: str, download: Download, here: Path) -> Path:
    """Return the file behind a URL, with the right hash."""
    try:
        import pooch  # type: ignore[import-untyped]
    except ImportError as error:
        raise ClrlError("clrl fetch needs pooch: pip install 'clrl[images]'", 3) from error
    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(
            pooch.retrieve(
                download.url, download.known_hash, fname=Path(download.url).name, path=here
            )
        )
    except OSError as error:
        if error.errno is not None:  # of this machine; those of the network have none
            raise
        raise ClrlError(
            f"cannot download {download.url} ({type(error).__name__}): run again with a network: "
            f"clrl fetch {name}; or copy {download.files[0]} into {folder()}",
            3,
        ) from error
    except ValueError as error:  # pooch's word for a wrong hash
        raise ClrlError(
            f"{download.url} is not what was published, {download.known_hash}: nothing was kept; "
            f"try again later: clrl fetch {name}",
            3,
        ) from error


def _unpacked(download: Download, path: Path, here: Path) -> dict[str, Path]:
    """Return the downloaded files by their names; names in an archive never become paths."""
    if not download.url.endswith(".tar.gz"):
        return {download.files[0]: path}
    ready = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for number, file in enumerate(download.files):
                content = archive.extractfile(file)  # a link leads to a member or nowhere
                if content is None:
                    raise KeyError(f"{file} is not a plain file")
                ready[file] = here / f"member-{number}"
                with content, ready[file].open("wb") as out:
                    while block := content.read(2**20):
                        out.write(block)
    except (tarfile.TarError, KeyError, EOFError, zlib.error) as error:
        raise ClrlError(
            f"{download.url}: {error.args[0] if error.args else error}: expected an archive with "
            f"{', '.join(download.files)}; nothing was kept",
            3,
        ) from error
    return ready
