"""The server as strangers meet it: over a socket, without a browser."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any

import pytest
from PIL import Image
from starlette.exceptions import HTTPException

from tests.inference.demo.conftest import Served
from tests.inference.demo.test_requests import BAD, asked
from tests.pictures import encoded, noise
from torchreptile.core.errors import ConfigError, TorchReptileError
from torchreptile.inference.demo import connections, server
from torchreptile.inference.demo.access import is_loopback
from torchreptile.inference.demo.connections import CONNECTIONS


def ask(demo: Served, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, Any]:
    """Status, headers, and the body, read as JSON where it is."""
    connection = http.client.HTTPConnection("127.0.0.1", demo.port, timeout=20)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    reply = json.loads(content) if answer.headers["content-type"] == "application/json" else content
    return answer.status, answer.headers, reply


def test_the_page_is_served_and_may_ask_nobody_else(demo: Served) -> None:
    status, headers, content = ask(demo, "GET", "/")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "access-control-allow-origin" not in headers
    assert headers["x-content-type-options"] == "nosniff"
    assert b"http" not in content  # no address of anybody else's
    for file in resources.files("torchreptile.inference.demo").joinpath("page").iterdir():
        if file.name != "index.html":
            assert ask(demo, "GET", f"/{file.name}")[2] == file.read_bytes()


def test_a_question_is_answered(demo: Served) -> None:
    status, _, reply = ask(demo, "POST", "/classify", asked())
    assert status == 200
    assert len(reply["losses"]) == 5
    assert reply["stages"][-1]["steps"] == 5
    assert len(reply["stages"][0]["probabilities"]) == 2
    assert len(reply["seen"]["pixels"]) == 1048  # 784 bytes in base64


@pytest.mark.parametrize(("body", "reply"), BAD[:4] + BAD[-1:])
def test_a_bad_question_gets_one_line(demo: Served, body: bytes, reply: str) -> None:
    status, _, answer = ask(demo, "POST", "/classify", body)
    assert status == 400
    assert answer.keys() == {"error"}


def test_pictures_come_back_as_the_network_sees_them(demo: Served) -> None:
    status, _, reply = ask(demo, "POST", "/picture", encoded(noise(3, 40)))
    assert status == 200
    assert len(reply["pixels"]) == 1048
    for content in (b"", b"no picture", encoded(noise(3, 40))[:60]):
        status, _, reply = ask(demo, "POST", "/picture", content)
        assert (status, list(reply)) == (400, ["error"])


def test_example_sets_come_by_their_seed(demo: Served) -> None:
    status, _, reply = ask(demo, "GET", "/examples?seed=7")
    assert status == 200
    assert [len(images) for images in reply["classes"]] == [3, 3, 3]
    for seed in ("", "-1", "x", "1e3", "99999999999", "4294967296", "%C2%B2"):
        assert ask(demo, "GET", f"/examples?seed={seed}")[0] == 400


def test_bodies_are_bounded(demo: Served) -> None:
    """By what is announced, and by what comes where nothing is."""
    with socket.create_connection(("127.0.0.1", demo.port), timeout=20) as line:
        line.sendall(b"POST /picture HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
        assert line.recv(4096).startswith(b"HTTP/1.1 413")
    with socket.create_connection(("127.0.0.1", demo.port), timeout=20) as line:
        line.sendall(b"POST /classify HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(9):
            line.sendall(b"100000\r\n" + b" " * 2**20 + b"\r\n")
        assert line.recv(4096).startswith(b"HTTP/1.1 413")  # the end is not waited for


def test_a_body_that_does_not_come_is_not_waited_for(demo: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "READING_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", demo.port), timeout=20) as line:
        line.sendall(b"POST /picture HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc")
        assert line.recv(4096).startswith(b"HTTP/1.1 408")


def test_who_hangs_up_leaves_no_trace(demo: Served) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger("uvicorn.error").addHandler(handler)
    with socket.create_connection(("127.0.0.1", demo.port), timeout=20) as line:
        line.sendall(b"POST /picture HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc")
    assert ask(demo, "POST", "/classify", asked())[0] == 200  # later than the end of that one
    logging.getLogger("uvicorn.error").removeHandler(handler)
    assert records == []


def test_few_may_wait() -> None:
    """The rest is told so at once."""

    async def crowd() -> list[object]:
        worker, done = server.Worker(), threading.Event()
        tasks = [asyncio.create_task(worker.do(done.wait)) for _ in range(server.WAITING + 3)]
        await asyncio.sleep(0.05)
        done.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        worker.close()
        return list(answers)

    with ThreadPoolExecutor(1) as pool:  # another test's browser may have a loop running in this thread
        answers = pool.submit(lambda: asyncio.run(crowd())).result()
    assert answers.count(True) == server.WAITING + 1
    assert {type(answer) for answer in answers[-2:]} == {HTTPException}


def test_silent_connections_make_room(demo: Served) -> None:
    """More of them than there may be, all open: the oldest are closed, and a question is answered."""
    lines = [socket.create_connection(("127.0.0.1", demo.port), timeout=20) for _ in range(CONNECTIONS + 6)]
    try:
        assert ask(demo, "GET", "/settings")[0] == 200
        with contextlib.suppress(ConnectionResetError):
            assert lines[0].recv(1) == b""
    finally:
        for line in lines:
            line.close()


def test_headers_have_a_deadline(demo: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that come byte by byte, and those of a second request."""
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", demo.port), timeout=20) as line:
        line.sendall(b"GET /settings HTTP/1.1\r\nHost: localhost\r\n\r\nGET /sett")
        content = b""
        started = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            while received := line.recv(4096):
                content += received
        assert time.monotonic() - started < 3
    assert content.startswith(b"HTTP/1.1 200")
    assert content.count(b"HTTP/1.1") == 1


def test_a_long_question_does_not_hold_the_others() -> None:
    """Work in parts takes turns: the short one ends after two parts of the long one, not after all."""
    order: list[str] = []

    def parts(name: str, count: int) -> Generator[None, None, str]:
        for number in range(count):
            order.append(f"{name}{number}")
            yield
        return name

    async def both() -> list[str]:
        worker = server.Worker()
        long, short = worker.do_in_parts(parts("long", 50)), worker.do_in_parts(parts("short", 2))
        names = await asyncio.gather(long, short)
        worker.close()
        return names

    with ThreadPoolExecutor(1) as pool:  # another test's browser may have a loop running in this thread
        assert pool.submit(lambda: asyncio.run(both())).result() == ["long", "short"]
    assert order.index("short1") <= 4
    assert len(order) == 52


def test_a_picture_of_many_pixels_is_refused_by_its_header(demo: Served) -> None:
    file = io.BytesIO()
    Image.new("1", (5000, 1000)).save(file, "PNG")
    status, _, answer = ask(demo, "POST", "/picture", file.getvalue())
    assert (status, answer) == (400, {"error": "the picture is 5000 x 1000; at most 4 megapixels are allowed"})


def test_headers_are_bounded(demo: Served) -> None:
    with socket.create_connection(("127.0.0.1", demo.port), timeout=20) as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000)
        assert line.recv(4096).startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    "path", ["/nothing", "/../server.py", "/%2e%2e/server.py", "//etc/passwd", "/page/index.html", "/index.html"]
)
def test_no_address_is_a_path(demo: Served, path: str) -> None:
    assert ask(demo, "GET", path)[::2] == (404, {"error": "no such page"})


def test_wrong_methods_are_named(demo: Served) -> None:
    assert ask(demo, "GET", "/classify")[::2] == (405, {"error": "/classify does not accept GET"})
    assert ask(demo, "DELETE", "/")[0] == 405


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("127.0.0.1:9", 200), ("[::1]:80", 200), ("127.8.8.8", 200),
        ("evil.example", 403), ("127.0.0.1.evil.example", 403), ("localhost@evil.example", 403), ("", 403), ("[", 403),
    ],
)  # fmt: skip
def test_names_that_were_made_to_point_here_are_refused(demo: Served, host: str, status: int) -> None:
    assert ask(demo, "GET", "/settings", Host=host)[0] == status


def test_other_pages_are_refused(demo: Served) -> None:
    own = f"127.0.0.1:{demo.port}"
    for origin, status in ((f"http://{own}", 200), ("http://evil.example", 403), ("null", 403)):
        assert ask(demo, "POST", "/classify", asked(), Origin=origin)[0] == status


def test_strangers_need_the_token(guarded: Served) -> None:
    for path in ("/", "/settings", "/style.css", "/?token=wrong", "/?token=", "/?token=%ff"):
        status, headers, reply = ask(guarded, "GET", path)
        assert (status, reply["error"][:40]) == (403, "the token is missing or wrong; open the ")
        assert "set-cookie" not in headers
    assert ask(guarded, "POST", "/classify", asked())[0] == 403
    status, headers, _ = ask(guarded, "GET", f"/?token={guarded.token}")
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert ask(guarded, "GET", "/settings", Cookie=cookie.partition(";")[0])[0] == 200
    assert ask(guarded, "GET", "/settings", Cookie=cookie.partition("=")[0] + "=wrong")[0] == 403


def test_the_token_is_asked_for_before_anything_is_read(guarded: Served) -> None:
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=20) as line:
        line.sendall(b"POST /picture HTTP/1.1\r\nHost: demo\r\nContent-Length: 1000000\r\n\r\n")
        assert line.recv(4096).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("demo.local", False)],
)
def test_which_addresses_are_this_machines_alone(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback


def test_addresses_to_open() -> None:
    with server.listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert server.address_of(listening, "127.0.0.1", "") == f"http://127.0.0.1:{port}/"
        assert server.address_of(listening, "::1", "t") == f"http://[::1]:{port}/?token=t"
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is taken; try --port"):
            server.listen("127.0.0.1", port)


@pytest.mark.parametrize(
    ("weights", "host", "port", "device", "message"),
    [
        ("omniglot-5way", "127.0.0.1", 70000, "cpu", "port is 70000; it must be from 0"),
        ("omniglot-5way", "127.0.0.1", -1, "cpu", "port is -1; it must be from 0"),
        ("omniglot-5way", "no such host", 0, "cpu", "host is no such host; it must be an address of this machine"),
        ("omniglot-5way", "192.0.2.1", 0, "cpu", r"host is 192.0.2.1; it must be an address of this machine \("),
        ("nothing-here", "127.0.0.1", 0, "cpu", "nothing-here: neither a run folder nor shipped weights"),
        ("omniglot-5way", "127.0.0.1", 0, "tpu", "device is tpu"),
    ],
)
def test_what_cannot_be_served_is_refused(weights: str, host: str, port: int, device: str, message: str) -> None:
    with pytest.raises(TorchReptileError, match=message):
        server.serve(weights, host, port, device, False)


def test_ctrl_c_ends_it_cleanly() -> None:
    command = [sys.executable, "-m", "torchreptile", "demo", "--port", "0"]
    environment = os.environ | {"PYTHONWARNINGS": "error::ResourceWarning"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as served:
        assert served.stdout is not None
        assert served.stdout.readline().startswith("http://127.0.0.1:")
        assert "Ctrl-C" in served.stdout.readline()
        served.send_signal(signal.SIGINT)
        try:
            out, err = served.communicate(timeout=60)
        finally:
            served.kill()  # which does nothing to one that has ended
    assert (served.returncode, out, err.strip()) == (0, "", "")
