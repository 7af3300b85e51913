"""The demo's server: the files of the page and four requests; it stores nothing that it is sent."""

from __future__ import annotations

import asyncio
import errno
import re
import secrets
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable, Generator
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
from torchreptile.core.streams import say
from torchreptile.inference.demo import requests
from torchreptile.inference.demo.access import Guard, is_loopback, refusal
from torchreptile.inference.demo.adaptation import Adapter
from torchreptile.inference.demo.connections import CONNECTIONS, BoundedConnection
from torchreptile.inference.demo.examples import example_set
from torchreptile.inference.demo.rasterize import MOST_PIXELS, pixels_of_picture, shaped
from torchreptile.training.weights import load_weights

QUESTION_BYTES = 8 * 2**20
PICTURE_BYTES = 10 * 2**20
HEADER_BYTES = 16 * 2**10
READING_SECONDS = 30  # time limit for the body of a request
WAITING = 8  # requests that may wait for the worker
EXAMPLE_CLASSES, EXAMPLE_IMAGES = 3, 3

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
T = TypeVar("T")


class Worker:
    """One thread for all slow work, with a short queue."""

    def __init__(self) -> None:
        """Start with an empty queue."""
        self._thread = ThreadPoolExecutor(1)
        self._pending = 0

    async def do(self, work: Callable[[], T]) -> T:
        """Return the result of ``work``, run after all work that waits already.

        Raises:
            HTTPException: 503, the queue is full.
        """

        def at_once() -> Generator[None, None, T]:
            return work()
            yield

        return await self.do_in_parts(at_once())

    async def do_in_parts(self, work: Generator[None, None, T]) -> T:
        """Return the result of ``work``, in turns with the other work: at each ``yield`` the next one continues.

        Raises:
            HTTPException: 503, the queue is full.
        """
        if self._pending > WAITING:
            raise HTTPException(503, "too many drawings at once; try again in a moment")
        self._pending += 1
        loop = asyncio.get_running_loop()
        try:
            while (end := await loop.run_in_executor(self._thread, _one_part, work)) is None:
                pass
            return end[0]
        finally:
            self._pending -= 1

    def close(self) -> None:
        """Finish the work in progress and cancel what waits."""
        self._thread.shutdown(cancel_futures=True)


def _one_part(work: Generator[None, None, T]) -> tuple[T] | None:
    """Continue ``work`` to its next ``yield``, and return None; or to its end, and return its result."""
    try:
        next(work)
    except StopIteration as end:
        return (end.value,)
    return None


@dataclass(frozen=True)
class Handlers:
    """The requests of the page.

    Attributes:
        adapter: adapts the weights.
        worker: runs what takes time.
    """

    adapter: Adapter
    worker: Worker

    async def settings(self, request: Request) -> Response:
        """Return the properties of the network and the limits."""
        weights, (channels, side, _) = self.adapter.weights, self.adapter.shape
        return JSONResponse(
            {
                "weights": weights.name,
                "way": weights.config.task.way,
                "steps": min(self.adapter.steps, requests.MOST_STEPS),
                "channels": channels,
                "side": side,
                "most_steps": requests.MOST_STEPS,
                "most_classes": requests.MOST_CLASSES,
                "most_images": requests.MOST_IMAGES,
                "picture_bytes": PICTURE_BYTES,
                "picture_pixels": MOST_PIXELS,
            }
        )

    async def classify(self, request: Request) -> Response:
        """Adapt to the classes and classify the query."""
        body = await read(request, QUESTION_BYTES)

        def work() -> Generator[None, None, dict[str, Any]]:
            question = requests.question(body, self.adapter.shape)
            answer = yield from self.adapter.answer_in_parts(question.classes, question.query, question.steps)
            seen = None if question.query is None else requests.text_of(question.query)
            return asdict(answer) | {"seen": seen}

        return JSONResponse(await self.worker.do_in_parts(work()))

    async def picture(self, request: Request) -> Response:
        """Return a picture file as the network's image, which the page stores."""
        body = await read(request, PICTURE_BYTES)
        by_hand = self.adapter.weights.config.task.drawn_by_hand
        pixels = await self.worker.do(lambda: pixels_of_picture(body, self.adapter.shape, by_hand))
        return JSONResponse(requests.text_of(pixels))

    async def examples(self, request: Request) -> Response:
        """Return generated symbols for ``?seed=``: images of each class, and one more of one class as the query."""
        given = request.query_params.get("seed", "")
        number = int(given) if re.fullmatch("[0-9]{1,10}", given) else given
        seed = requests.whole_number(number, "seed", 0, requests.MOST_SEED)
        drawings = await self.worker.do(lambda: example_set(EXAMPLE_CLASSES, EXAMPLE_IMAGES + 1, seed))
        sent = [[requests.text_of(shaped(pixels, self.adapter.shape)) for pixels in images] for images in drawings]
        return JSONResponse({"classes": [images[:-1] for images in sent], "query": sent[seed % EXAMPLE_CLASSES][-1]})


async def read(request: Request, most: int) -> bytes:
    """Return the body of a request, of at most ``most`` bytes.

    Raises:
        HTTPException: 413 for a larger body, 408 for a slow one, 400 if the client disconnects.
    """
    too_large = HTTPException(413, f"the request is larger than {most // 2**20} MiB, the limit")
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(READING_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise too_large
    except ClientDisconnect as error:
        raise HTTPException(400, "the request was cut off") from error  # nobody reads it, but it is not a server error
    except TimeoutError as error:
        raise HTTPException(408, f"the request did not arrive within {READING_SECONDS} seconds") from error
    return bytes(body)


def application(adapter: Adapter, worker: Worker, token: str = "", cookie: str = "reptile-demo") -> ASGIApp:
    """Return the application. The page's files are read now and served by name, so no address is used as a path."""
    handlers = Handlers(adapter, worker)
    routes = [
        _file("/" if file.name == "index.html" else f"/{file.name}", file.name, file.read_bytes())
        for file in resources.files("torchreptile.inference.demo").joinpath("page").iterdir()
    ]
    routes += [
        Route("/settings", handlers.settings),
        Route("/classify", handlers.classify, methods=["POST"]),
        Route("/picture", handlers.picture, methods=["POST"]),
        Route("/examples", handlers.examples),
    ]
    errors = {HTTPException: _http_error, TorchReptileError: _bad_request}
    return Guard(Starlette(routes=routes, exception_handlers=errors), token, cookie)


def _file(path: str, name: str, content: bytes) -> Route:
    """The route of one file of the page."""
    kind = KINDS[name.rpartition(".")[2]]
    return Route(path, lambda request: Response(content, media_type=kind))


def _http_error(request: Request, error: Exception) -> Response:
    """The response to an error with an HTTP status."""
    assert isinstance(error, HTTPException)
    known = {404: "no such page", 405: f"{request.url.path} does not accept {request.method}"}
    return refusal(error.status_code, known.get(error.status_code, error.detail))


def _bad_request(request: Request, error: Exception) -> Response:
    """The response to a request that the library refuses."""
    return refusal(400, str(error))


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens for connections.

    Raises:
        ConfigError: the address is not of this machine, or the port is taken or forbidden.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"port is {port}; it must be from 0 (any free port) to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"host is {host}; it must be an address of this machine, such as 127.0.0.1") from error
    family, _, _, _, address = found[0]
    try:
        return socket.create_server(address[:2], family=family)
    except PermissionError as error:
        raise ConfigError(f"port is {port}, which this user may not use; try --port 8000") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} of {host} is taken; try --port {port + 1}, or --port 0 for any free port"
            ) from error
        raise ConfigError(f"host is {host}; it must be an address of this machine ({error.strerror})") from error


def address_of(listening: socket.socket, host: str, token: str) -> str:
    """Return the address to open in a browser."""
    port = listening.getsockname()[1]
    name = socket.gethostname() if host in ("0.0.0.0", "::", "") else host
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def serve(weights: str, host: str, port: int, device: str, open_browser: bool) -> int:
    """Serve the demo until Ctrl-C and return the exit code.

    Raises:
        ConfigError: device or address cannot be used, or the demo cannot show these weights.
        RunError: the weights cannot be loaded.
    """
    with listen(host, port) as listening:
        adapter, worker = Adapter(load_weights(weights), device), Worker()
        token = "" if is_loopback(host) else secrets.token_urlsafe(24)
        app = application(adapter, worker, token, f"reptile-demo-{listening.getsockname()[1]}")
        address = address_of(listening, host, token)
        server = uvicorn.Server(settings(app))
        try:
            # Set before Ctrl-C is announced; uvicorn's own handlers come later and call this one.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, lambda number, frame: setattr(server, "should_exit", True))
            print(f"{address}\nOpen this address to draw; press Ctrl-C to stop.", flush=True)
            if token:
                say(
                    f"reptile: others can connect to {host}; anyone with this address can use the demo, and nothing is "
                    "encrypted"
                )
            if open_browser:
                webbrowser.open(address)
            server.run(sockets=[listening])
        finally:
            worker.close()
    return 0


def settings(app: ASGIApp) -> uvicorn.Config:
    """Return uvicorn's settings: one protocol, no logs, and limits on connections and headers."""
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=BoundedConnection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS + 1,  # 503 if all are busy, so that none could be closed for a new one
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_graceful_shutdown=2,
    )
