"""The demo's server: the page's files, and four questions that it answers. It keeps nothing of what it is sent."""

from __future__ import annotations

import asyncio
import errno
import re
import secrets
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from torchreptile.core.errors import ConfigError, TorchReptileError
from torchreptile.inference.demo import requests as asked
from torchreptile.inference.demo.access import Guard, is_loopback, refusal
from torchreptile.inference.demo.adaptation import Teacher
from torchreptile.inference.demo.examples import example_set
from torchreptile.inference.demo.rasterize import pixels_of_picture, shaped
from torchreptile.training.weights import load_weights

QUESTION_BYTES = 8 * 2**20
PICTURE_BYTES = 10 * 2**20
HEADER_BYTES = 16 * 2**10
READING_SECONDS = 30  # for the body of a request
WAITING = 8  # requests that may wait for the one worker
CONNECTIONS = 64
EXAMPLE_CLASSES, EXAMPLE_IMAGES = 3, 3

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
T = TypeVar("T")


class Worker:
    """One thread for everything that takes time, with room for a few who wait."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._inside = 0

    async def do(self, work: Callable[[], T]) -> T:
        """Its result, when its turn has come.

        Raises:
            HTTPException: 503, too many wait already.
        """
        if self._inside > WAITING:
            raise HTTPException(503, "too many drawings at once; try again in a moment")
        self._inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._inside -= 1

    def close(self) -> None:
        """Once what is being done is done."""
        self._thread.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Answers:
    """What the page can ask."""

    teacher: Teacher
    worker: Worker

    async def settings(self, request: Request) -> Response:
        """What the page must know of the network and of the limits."""
        learned, (channels, side, _) = self.teacher.learned, self.teacher.shape
        return JSONResponse(
            {
                "weights": learned.name,
                "way": learned.config.task.way,
                "steps": min(self.teacher.steps, asked.MOST_STEPS),
                "channels": channels,
                "side": side,
                "most_steps": asked.MOST_STEPS,
                "most_classes": asked.MOST_CLASSES,
                "most_images": asked.MOST_IMAGES,
                "picture_bytes": PICTURE_BYTES,
            }
        )

    async def classify(self, request: Request) -> Response:
        """Adapt to the classes and label the query."""
        body = await read(request, QUESTION_BYTES)

        def work() -> dict[str, Any]:
            question = asked.question(body, self.teacher.shape)
            answer = self.teacher.answer(question.classes, question.query, question.steps)
            seen = None if question.query is None else asked.text_of(question.query)
            return asdict(answer) | {"seen": seen}

        return JSONResponse(await self.worker.do(work))

    async def picture(self, request: Request) -> Response:
        """An image file as the network sees it, for the page to keep."""
        body = await read(request, PICTURE_BYTES)
        by_hand = self.teacher.learned.config.task.drawn_by_hand
        pixels = await self.worker.do(lambda: pixels_of_picture(body, self.teacher.shape, by_hand))
        return JSONResponse(asked.text_of(pixels))

    async def examples(self, request: Request) -> Response:
        """Generated symbols by ``?seed=``: some images of each class, and one more of one of them as the query."""
        given = request.query_params.get("seed", "")
        number = int(given) if re.fullmatch("[0-9]{1,10}", given) else given
        seed = asked.whole(number, "seed", 0, asked.MOST_SEED)
        drawings = await self.worker.do(lambda: example_set(EXAMPLE_CLASSES, EXAMPLE_IMAGES + 1, seed))
        sent = [[asked.text_of(shaped(pixels, self.teacher.shape)) for pixels in images] for images in drawings]
        return JSONResponse({"classes": [images[:-1] for images in sent], "query": sent[seed % EXAMPLE_CLASSES][-1]})


async def read(request: Request, most: int) -> bytes:
    """The body of a request, of which no more is read than is allowed.

    Raises:
        HTTPException: 413, it is larger; 408, it does not come; 400, it breaks off.
    """
    too_large = HTTPException(413, f"that is more than {most // 2**20} MiB, which is the most that is read")
    told = request.headers.get("content-length", "0")
    if told.isdigit() and int(told) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(READING_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > most:
                    raise too_large
    except ClientDisconnect as error:
        raise HTTPException(400, "the message broke off") from error  # for nobody, but no fault of the server's
    except TimeoutError as error:
        raise HTTPException(408, f"the message did not come within {READING_SECONDS} seconds") from error
    return bytes(body)


def application(teacher: Teacher, worker: Worker, token: str = "", cookie: str = "reptile-demo") -> ASGIApp:
    """Everything that is served. The page's files are read now, and by their own names: no address is ever a path."""
    answers = Answers(teacher, worker)
    routes = [
        _file("/" if file.name == "index.html" else f"/{file.name}", file.name, file.read_bytes())
        for file in resources.files("torchreptile.inference.demo").joinpath("page").iterdir()
    ]
    routes += [
        Route("/settings", answers.settings),
        Route("/classify", answers.classify, methods=["POST"]),
        Route("/picture", answers.picture, methods=["POST"]),
        Route("/examples", answers.examples),
    ]
    handlers = {HTTPException: _said, TorchReptileError: _mistaken}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token, cookie)


def _file(path: str, name: str, content: bytes) -> Route:
    kind = KINDS[name.rpartition(".")[2]]
    return Route(path, lambda request: Response(content, media_type=kind))


def _said(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {404: "there is no such page here", 405: f"{request.url.path} is not asked by {request.method}"}
    return refusal(error.status_code, known.get(error.status_code, error.detail))


def _mistaken(request: Request, error: Exception) -> Response:
    return refusal(400, str(error))


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits for connections.

    Raises:
        ConfigError: that cannot be had.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"port is {port}; it must be from 0 (any that is free) to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"host is {host}; it must be an address of this machine, such as 127.0.0.1") from error
    family, _, _, _, address = found[0]
    try:
        return socket.create_server(address[:2], family=family)
    except PermissionError as error:
        raise ConfigError(f"port is {port}, which this user may not take; try --port 8000") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} of {host} is taken; try --port {port + 1}, or --port 0 for any") from error
        raise ConfigError(f"host is {host}; it must be an address of this machine ({error.strerror})") from error


def address_of(listening: socket.socket, host: str, token: str) -> str:
    """What to open in a browser."""
    port = listening.getsockname()[1]
    name = socket.gethostname() if host in ("0.0.0.0", "::", "") else host
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def serve(weights: str, host: str, port: int, device: str, open_browser: bool) -> int:
    """Answer until Ctrl-C.

    Raises:
        ConfigError, RunError: weights, device or address cannot be used.
    """
    with listen(host, port) as listening:
        teacher, worker = Teacher(load_weights(weights), device), Worker()
        token = "" if is_loopback(host) else secrets.token_urlsafe(24)
        app = application(teacher, worker, token, f"reptile-demo-{listening.getsockname()[1]}")
        address = address_of(listening, host, token)
        server = uvicorn.Server(settings(app))
        try:
            # Before it is said that Ctrl-C ends it. The library's own handlers come later, and hand over to this one.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, lambda number, frame: setattr(server, "should_exit", True))
            print(f"{address}\nDraw there; Ctrl-C ends it.", flush=True)
            if token:
                print(
                    f"reptile: others can connect to {host}; whoever has this address can use the demo, and nothing is "
                    "encrypted",
                    file=sys.stderr,
                )
            if open_browser:
                webbrowser.open(address)
            server.run(sockets=[listening])
        finally:
            worker.close()
    return 0


def settings(app: ASGIApp) -> uvicorn.Config:
    """How the server library is to behave: small, quiet, bounded."""
    return uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_graceful_shutdown=2,
    )
