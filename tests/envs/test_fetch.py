"""`clrl fetch`: what was published arrives whole, or nothing does; the server is in the test."""

from __future__ import annotations

import errno
import gc
import gzip
import hashlib
import io
import os
import sys
import tarfile
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from clrl import doctor
from clrl.envs import fetch as fetching
from clrl.envs.datasets import DATASETS, _load, load
from clrl.envs.fetch import DOWNLOADS, Download, altered, fetch
from clrl.types import ClrlError

REAL = os.environ.get("CLRL_DATA")


class Server:
    """A web server: `files` by path, and what was `asked` for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.short = 0  # so many bytes of every answer are never sent
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                content = outer.files.get(self.path)
                self.send_response(200 if content is not None else 404)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write((content or b"")[: len(content or b"") - outer.short])

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    yield server
    server.close()
    with warnings.catch_warnings():  # pooch does not close the connection of an answer that failed
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def mnist(server: Server, published: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MNIST on the server, and an empty folder for it here."""
    published.mnist()
    downloads = []
    for file in DATASETS["mnist"].files:
        path = published.root / file
        server.files[f"/{path.name}"] = raw = path.read_bytes()
        known_hash = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        downloads.append(Download(f"{server.url}/{path.name}", known_hash, (file,)))
        path.unlink()
    (published.root / "mnist").rmdir()
    monkeypatch.setitem(DOWNLOADS, "mnist", tuple(downloads))
    return published


def failed(name: str, root: Path) -> tuple[int, str]:
    """Return exit code and line of a download that fails, and leaves the folder as it was."""
    before = sorted(root.rglob("*"))
    with pytest.raises(ClrlError) as caught:
        fetch(name)
    assert sorted(root.rglob("*")) == before
    assert "\n" not in str(caught.value)
    return caught.value.exit_code, str(caught.value)


def test_what_was_published_arrives_and_can_be_read(mnist: Any, server: Server) -> None:
    written = fetch("MNIST")
    assert written == [mnist.root / file for file in DATASETS["mnist"].files]
    assert [path.read_bytes() for path in written] == list(server.files.values())
    assert len(load("mnist").train.x) == 60
    assert [path.name for path in mnist.root.iterdir()] == ["mnist"]  # nothing temporary


def test_what_is_there_is_not_asked_for_again(mnist: Any, server: Server) -> None:
    gone = fetch("mnist")[2]
    server.asked.clear()
    assert fetch("mnist") == [] and server.asked == []
    gone.unlink()
    assert fetch("mnist") == [gone] and server.asked == [f"/{gone.name}"]


@pytest.mark.parametrize("number", [0, 3])
def test_a_wrong_checksum_is_told_and_nothing_kept(mnist: Any, server: Server, number: int) -> None:
    path = list(server.files)[number]
    server.files[path] = server.files[path][:-1] + b"\x01"
    code, told = failed("mnist", mnist.root)
    assert code == 3
    assert f"{server.url}{path} is not what was published" in told
    assert "sha256:" in told and "clrl fetch mnist" in told


def test_files_that_are_there_but_not_as_published_are_told(
    mnist: Any, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = fetch("mnist")[1]
    assert altered("mnist") == []
    load("mnist")
    assert not caplog.records
    wrong.write_bytes(gzip.compress(gzip.decompress(wrong.read_bytes())[:-1] + b"\x00", 1))
    assert altered("mnist") == [wrong]
    code, told = failed("mnist", mnist.root)
    assert code == 3
    assert told.startswith(
        f"{wrong} is not what was published: delete it and run: clrl fetch mnist"
    )
    absent = mnist.root / DATASETS["mnist"].files[0]
    absent.unlink()
    with pytest.raises(ClrlError, match="is not what was published"):
        fetch("mnist")
    assert absent.exists()  # what is missing comes all the same
    (check,) = doctor._data_sets()
    assert check.state == "note"
    assert check.value.endswith(f"; not as published: {wrong}")
    _load.cache_clear()
    assert len(load("mnist").train.x) == 60  # it may be the user's own
    assert caplog.messages == [
        f"{wrong} is not what was published as mnist: its results are of other data"
    ]


def test_of_files_without_a_hash_of_their_own_nothing_is_told(mnist: Any, published: Any) -> None:
    (packed, *_) = fetch("mnist")
    packed.with_suffix("").write_bytes(b"unpacked by hand")
    packed.unlink()
    published.cifar("cifar10")  # which came in an archive
    assert altered("mnist") == altered("cifar10") == altered("digits") == []


def test_without_a_network_the_command_to_repeat_is_told(mnist: Any, server: Server) -> None:
    server.http.server_close()  # nobody listens at this port any more
    code, told = failed("mnist", mnist.root)
    assert code == 3
    assert server.url in told and "clrl fetch mnist" in told and str(mnist.root) in told


def test_a_file_that_is_gone_or_comes_in_part_leaves_nothing(mnist: Any, server: Server) -> None:
    server.short = 5
    code, told = failed("mnist", mnist.root)
    assert (code, "clrl fetch mnist" in told) == (3, True)
    server.short = 0
    del server.files[f"/{Path(DATASETS['mnist'].files[3]).name}"]  # after three that came
    code, told = failed("mnist", mnist.root)
    assert (code, "HTTPError" in told) == (3, True)


def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLRL_DATA", str(tmp_path / "file"))
    code, told = failed("mnist", tmp_path)
    assert code == 1 and "CLRL_DATA" in told and str(tmp_path / "file") in told


def test_a_full_disk_is_not_a_missing_network(mnist: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pooch.retrieve", full)
    code, told = failed("mnist", mnist.root)
    assert code == 1 and "No space left on device" in told


def test_without_pooch_it_says_what_to_install(
    published: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    code, told = failed("mnist", published.root)
    assert code == 3 and "pip install 'clrl[images]'" in told


def test_an_unknown_data_set_is_refused_and_digits_are_there(published: Any) -> None:
    assert failed("mnits", published.root)[0] == 3
    assert fetch("digits") == []


# ------------------------------------------------------------------------------------ archives


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def serve(server: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what puts an archive of CIFAR-100 on the server."""

    def _serve(raw: bytes) -> None:
        server.files["/cifar.tar.gz"] = raw
        known_hash = f"md5:{hashlib.md5(raw, usedforsecurity=False).hexdigest()}"
        download = Download(f"{server.url}/cifar.tar.gz", known_hash, DATASETS["cifar100"].files)
        monkeypatch.setitem(DOWNLOADS, "cifar100", (download,))

    return _serve


def test_of_an_archive_only_what_is_expected_is_written(
    serve: Any, published: Any, tmp_path: Path
) -> None:
    published.cifar("cifar100")
    raw = {}
    for file in DATASETS["cifar100"].files:
        raw[file] = (published.root / file).read_bytes()
        (published.root / file).unlink()
    stray = ["../evil", "/tmp/evil-of-clrl", str(tmp_path / "evil"), "cifar-100-binary/other.txt"]
    serve(archive(*((tarfile.TarInfo(n), raw.get(n, b"evil")) for n in [*stray, *raw])))
    before = set(tmp_path.rglob("*"))
    written = fetch("cifar100")
    assert [path.read_bytes() for path in written] == list(raw.values())
    assert set(tmp_path.rglob("*")) - before == set(written)
    assert not Path("/tmp/evil-of-clrl").exists()
    assert len(load("cifar100").train.x) == 150


def test_an_archive_without_what_is_expected_is_refused(
    serve: Any, published: Any, tmp_path: Path
) -> None:
    train, test = DATASETS["cifar100"].files
    (tmp_path / "secret").write_bytes(b"secret")
    link = tarfile.TarInfo(test)
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
    inner = tarfile.TarInfo(test)
    inner.type = tarfile.DIRTYPE
    good = (tarfile.TarInfo(train), b"x" * 3074)
    odd = [archive(good, (member, b"")) for member in (link, inner)]
    for raw in (archive(good), *odd, b"no archive", archive(good)[:-30]):
        serve(raw)
        code, told = failed("cifar100", published.root)
        assert code == 3 and "expected an archive with" in told, raw[:10]


# ------------------------------------------------------------------------------ the catalogue


def test_every_data_set_has_its_downloads() -> None:
    assert set(DOWNLOADS) == set(DATASETS)
    for name, downloads in DOWNLOADS.items():
        assert tuple(file for d in downloads for file in d.files) == DATASETS[name].files
        for download in downloads:
            kind, _, digest = download.known_hash.partition(":")
            assert len(digest) == {"sha256": 64, "md5": 32}[kind]
            assert download.url.startswith("https://")


# The md5s that torchvision (MNIST) and the data set's own page (CIFAR) give.
PUBLISHED = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}


@pytest.mark.parametrize("name", ["mnist", "notmnist"])
def test_the_checksums_are_those_of_the_published_files(name: str) -> None:
    for url, known_hash, (file,) in DOWNLOADS[name]:
        path = Path(REAL or "nowhere") / file
        if not path.is_file():
            pytest.skip(f"CLRL_DATA has no {name}: clrl fetch {name}")
        raw = path.read_bytes()
        assert known_hash == f"sha256:{hashlib.sha256(raw).hexdigest()}"
        if name == "mnist":
            md5 = hashlib.md5(raw, usedforsecurity=False).hexdigest()
            assert md5 == PUBLISHED[Path(url).name]


def test_downloads_are_whole_before_anything_takes_its_place(
    mnist: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    downloaded = fetching._downloaded

    def watched(*arguments: Any) -> Path:
        seen.append([path.name for path in mnist.root.iterdir() if path.name[0] != "."])
        return downloaded(*arguments)

    monkeypatch.setattr(fetching, "_downloaded", watched)
    fetch("mnist")
    assert seen == [[]] * 4
