"""`ramctl serve`: a page that tags photos, and the same over HTTP for programs."""

import asyncio
import re
import socket
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from ramctl.checkpoints.bundle import resolve_model
from ramctl.engine.device_pool import split_devices
from ramctl.engine.peers import peer_spec
from ramctl.errors import RunProblem, UsageProblem
from ramctl.parts import require
from ramctl.photos.limits import PhotoLimits
from ramctl.records.report import Report
from ramctl.searching.folder_index import open_search
from ramctl.tagging.tagger import Tagger
from ramctl.tagging.tagger_options import TaggerOptions

if TYPE_CHECKING:
    from ramctl.serving.loaded_taggers import Variant

_MAX_OTHERS = 3
_MAX_MODEL_BYTES = 90_000_000  # files of all models for other words, boxes and captions


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The options of `ramctl serve`."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any that is free
    model: str = "mini"
    labels: str | None = None  # words, or a file of them, instead of the model's
    index: Path | None = None  # records with embeddings, or a folder of photos, to search
    allow_origin: tuple[str, ...] = ()  # web pages that may send requests: `https://example.org`
    access_log: bool = False  # a line for each request on stdout
    device: str = "auto"
    dtype: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    threads: int | None = None
    max_bytes: int = 30_000_000
    max_pixels: int = 100_000_000
    max_seconds: float = 30.0
    quiet: bool = False


def run(options: ServeOptions) -> Report:
    """Serve until a signal; RunProblem when the address is in use or an extra is missing."""
    for origin in options.allow_origin:
        if not re.fullmatch(r"https?://[^/\s*@]+", origin):
            raise UsageProblem(f"--allow-origin {origin}: expected https://NAME[:PORT]")
    if len(split_devices(options.device)) > 1:
        raise UsageProblem(f"--device {options.device}: a server has one device: start several")
    require("serve", "ramctl serve")
    import uvicorn

    from ramctl.serving.app import LOOPBACK, make_app
    from ramctl.serving.loaded_taggers import LoadedTaggers, Variant
    from ramctl.serving.traffic import Traffic

    report = Report("serve", quiet=options.quiet)
    limits = PhotoLimits(options.max_pixels, options.max_bytes, options.max_seconds, patient=False)
    load = partial(_load, options, limits)
    taggers = LoadedTaggers(load, load(Variant()), _max_others(options.model))
    search = open_search(options.index, options.model, report) if options.index else None
    is_local = options.host in LOOPBACK
    app = make_app(
        options.model, taggers, limits, only_here=is_local, origins=options.allow_origin,
        traffic=Traffic(sys.stdout.buffer if options.access_log else None), search=search,
    )  # fmt: skip
    config = uvicorn.Config(
        app, http=_closing_after(options.max_seconds), ws="none", lifespan="off",
        log_level="critical" if options.quiet else "error", access_log=False, server_header=False,
        headers=[("connection", "close")], timeout_graceful_shutdown=5,
    )  # fmt: skip

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            """Print the address once the server answers."""
            await super().startup(sockets)
            port = place.getsockname()[1]
            name = f"[{options.host}]" if ":" in options.host else options.host
            report.notify(f"http://{name}:{port}/ tags photos with {options.model}; Ctrl-C ends it")
            if not is_local:
                report.warn("there is no password: anybody who reaches this address can use it")

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            """Let the requests that are still running answer that the server ends."""
            await super().shutdown(sockets)
            if self.server_state.tasks:
                await asyncio.wait(self.server_state.tasks, timeout=1)

    with _listening(options.host, options.port) as place:
        Server(config).run(sockets=[place])
    return report


def _closing_after(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's HTTP/1.1 protocol, which alone would wait for ever for a request to begin."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            """Close the connection if its request has not begun in time."""
            super().connection_made(transport)
            self.loop.call_later(seconds, self._close_if_silent)

        def _close_if_silent(self) -> None:
            if self.cycle is None:
                self.transport.close()

    return Protocol


def _max_others(model: str) -> int:
    """The number of taggers besides the first in memory: each has a copy of the model."""
    peer = peer_spec(model)
    folder = Path(peer.partition(":")[2]) if peer else resolve_model(model)
    n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return min(max(_MAX_MODEL_BYTES // max(n_bytes, 1), 1), _MAX_OTHERS)


def _load(options: ServeOptions, limits: PhotoLimits, variant: "Variant") -> Tagger:
    tagger_options = TaggerOptions(
        labels=list(variant.labels) or options.labels, precision=variant.precision,
        threshold=0.0 if variant.labels and variant.precision is None else None,
        boxes=variant.boxes, caption=variant.caption, dense=True, embedding=variant.embedding,
        device=options.device, dtype=options.dtype, threads=options.threads, limits=limits,
    )  # fmt: skip
    try:
        tagger = Tagger.open(options.model, tagger_options)
        tagger.tag(Image.new("RGB", (8, 8)))  # loads now what the first photo would load
    except ModuleNotFoundError as error:
        raise RunProblem(f"this needs {error.name}, which is not installed") from error
    return tagger


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunProblem(f"{host}:{port}: {reason}") from error
