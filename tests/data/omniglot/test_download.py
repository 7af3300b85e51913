"""Downloads, from a server on this machine: kept, fetched again, refused."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pooch
import pytest

from torchreptile.core.errors import DataError
from torchreptile.data.omniglot.download import RemoteFile, fetch

RETRIEVE = pooch.retrieve  # a fixture takes it away from every test


class Server(BaseHTTPRequestHandler):
    """A host of one file, ``b"whole"``, whose connection breaks half way when asked for /broken."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"wh" if self.path == "/broken" else b"whole")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a :class:`Server` on this machine, with pooch as it is."""
    monkeypatch.setattr(pooch, "retrieve", RETRIEVE)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), Server) as host:
        thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{host.server_port}"
        host.shutdown()
        thread.join()


def test_a_download_is_kept_and_a_changed_one_is_fetched_again(server: str, tmp_path: Path) -> None:
    file = RemoteFile("a.zip", f"{server}/whole", hashlib.md5(b"whole").hexdigest())
    for before in (None, b"whole", b"who"):
        if before:
            (tmp_path / "cache" / "omniglot" / "a.zip").write_bytes(before)
        (path,) = fetch("omniglot", [file])
        assert path == tmp_path / "cache" / "omniglot" / "a.zip"
        assert path.read_bytes() == b"whole"


@pytest.mark.parametrize("what", ["broken", "whole"], ids=["interrupted", "wrong checksum"])
def test_a_bad_download_is_refused_and_leaves_nothing(what: str, server: str, tmp_path: Path) -> None:
    md5 = hashlib.md5(b"wh").hexdigest()  # right for the half that arrives of the broken one
    with pytest.raises(DataError, match=r"cannot download a\.zip"):
        fetch("omniglot", [RemoteFile("a.zip", f"{server}/{what}", md5)])
    assert list((tmp_path / "cache" / "omniglot").iterdir()) == []
