"""A policy behind openpi's websocket: metadata first, then one reply to each request.

Replies are MessagePack; a text in place of one says what was wrong. `GET /healthz` says OK, and
`GET /metrics`, with the token if there is one, what was served and how long it took. One client at
a time has the policy, because there is one memory: another is told so and let go. Its connection is
its session: a new one never sees the memory of the one before.
"""

import asyncio
import contextlib
import http
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from memorywam_robot.adapters.dialects import Conversation, PolicyService, is_epoch_begin
from memorywam_robot.adapters.openpi_thread import PolicyThread, text_from_error
from memorywam_robot.adapters.serving import ServeOptions
from memorywam_robot.adapters.serving_metrics import CONTENT_TYPE, metrics_text
from memorywam_robot.adapters.wire import data_from_wire, wire_from_data
from memorywam_runtime.errors import InputError, MissingPartError

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

__all__ = ["OpenpiServer", "ServeCounts"]

_LOG = logging.getLogger(__name__)

_TRY_AGAIN_LATER = 1013
_NORMAL = 1000
_LEAVING_S = 3.0
"""How long a link that is being closed may take to be gone."""
_MOST_WAITING = 4
"""Requests that a client may send ahead; after that it is not read from."""


@dataclass(slots=True, kw_only=True)
class ServeCounts:
    """What was served."""

    clients: int = 0
    refused_clients: int = 0
    """Without the token, or while another had the policy."""
    requests: int = 0
    refused_requests: int = 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request as it arrived."""

    message: object
    """Or the error that it was."""
    epoch: int


class OpenpiServer:
    """Serves one policy until it is stopped."""

    def __init__(self, service: PolicyService, options: ServeOptions | None = None) -> None:
        """Open nothing yet.

        Raises:
            MissingPartError: websockets is not installed.
        """
        _websockets()
        self.counts = ServeCounts()
        self._service = service
        self._options = options or ServeOptions()
        self._thread = PolicyThread(self._options.request_timeout_s)
        self._current: ServerConnection | None = None
        """Who has the policy."""
        self._freed = asyncio.Event()
        self._is_answering = False

    async def run(self, stop: asyncio.Event, listening: Callable[[str, int], None]) -> None:
        """Serve until `stop` is set.

        Args:
            stop: Set it in this loop; clients are told that the server is going away.
            listening: Called with address and port once clients can connect.

        Raises:
            InputError: the address cannot be listened on.
        """
        options = self._options
        try:
            server = await _websockets().serve(
                self._client,
                options.host,
                options.port,
                process_request=self._admit,
                # A web page says where it is from, a robot's client does not: without this, any
                # page in a browser on this machine could move the arms.
                origins=[None],
                compression=None,
                max_size=options.limits.max_bytes,
                max_queue=2,
                ping_interval=options.ping_interval_s,
                ping_timeout=options.ping_interval_s,
                close_timeout=2,
                server_header=None,
            )
        except OSError as error:
            raise InputError(
                f"cannot listen on {options.host} port {options.port}: {error.strerror or error}; "
                "expected a free port and an address of this machine"
            ) from error
        try:
            address, port = next(iter(server.sockets)).getsockname()[:2]
            listening(address, port)
            await stop.wait()
        finally:
            self._thread.close()
            server.close()
            await server.wait_closed()

    def _admit(self, connection: "ServerConnection", request: "Request") -> "Response | None":
        """Answer what is no client of the policy's; None lets one in."""
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self._options.admits(request.headers.get("Authorization")):
            return self._metrics(connection) if request.path == "/metrics" else None
        self.counts.refused_clients += 1
        _LOG.warning("refused %s: no token, or another", connection.remote_address)
        return connection.respond(
            http.HTTPStatus.UNAUTHORIZED, "expected the header Authorization: Api-Key TOKEN\n"
        )

    def _metrics(self, connection: "ServerConnection") -> "Response":
        """Tell what was served; the policy is not asked, so this waits for no chunk."""
        counters = asdict(self.counts) | self._service.counters()
        text = metrics_text(counters, self._service.gauges(), self._service.stages())
        response = connection.respond(http.HTTPStatus.OK, text)
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = CONTENT_TYPE
        return response

    async def _client(self, connection: "ServerConnection") -> None:
        """Serve one client, or tell it that another is there."""
        if not await self._has_place():
            self.counts.refused_clients += 1
            _LOG.warning("refused %s: another client is served", connection.remote_address)
            await connection.close(
                _TRY_AGAIN_LATER, "another client has the policy: one memory, one client at a time"
            )
            return
        self._current = connection
        self._freed.clear()
        self.counts.clients += 1
        self._thread.begin_epoch()
        _LOG.info("serving %s", connection.remote_address)
        try:
            await self._serve(connection)
        finally:
            self._thread.begin_epoch()
            self._current = None
            self._freed.set()
            _LOG.info("%s has gone", connection.remote_address)

    async def _has_place(self) -> bool:
        """Return whether nobody has the policy, or is just leaving it: often the same client."""
        if self._current is not None and self._current.state is not _open_state():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._freed.wait(), _LEAVING_S)
        return self._current is None

    async def _serve(self, connection: "ServerConnection") -> None:
        """Read and answer at the same time, until either ends."""
        asked: asyncio.Queue[_Asked] = asyncio.Queue(_MOST_WAITING)
        conversation = self._service.conversation()
        reading = asyncio.ensure_future(self._read(connection, asked))
        answering = asyncio.ensure_future(self._answer(connection, conversation, asked))
        tasks = (reading, answering)
        try:
            # A link that is lost ends the reading, and the place is free at once, although the
            # policy may still be at work: its answer belongs to an epoch that is over.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
        for error in found:
            if isinstance(error, Exception) and not _is_closed(error):
                raise error

    async def _read(self, connection: "ServerConnection", asked: asyncio.Queue[_Asked]) -> None:
        """Queue requests as they arrive; one that begins an epoch voids those before it."""
        idle_s = self._options.idle_timeout_s or None
        epoch = self._thread.epoch
        while True:
            try:
                received = await asyncio.wait_for(connection.recv(), idle_s)
            except asyncio.TimeoutError:
                if not asked.empty() or self._is_answering:
                    continue
                _LOG.warning("%s sent nothing for %g s", connection.remote_address, idle_s)
                await connection.close(_NORMAL, f"no request for {idle_s:g} s (--idle-timeout)")
                return
            message = self._message(received)
            # A time-out, too, may have begun one.
            epoch = self._thread.begin_epoch() if is_epoch_begin(message) else self._thread.epoch
            await asked.put(_Asked(message, epoch))

    def _message(self, received: str | bytes) -> object:
        """Return what was received, or the error that it is."""
        if isinstance(received, str):
            return InputError("found a text; expected a binary message in MessagePack")
        try:
            return data_from_wire(received, self._options.limits)
        except InputError as error:
            return error

    async def _answer(
        self,
        connection: "ServerConnection",
        conversation: Conversation,
        asked: asyncio.Queue[_Asked],
    ) -> None:
        """Send the metadata, then a reply to each request, in their order."""
        await connection.send(wire_from_data(self._service.metadata()))
        previous_ms: float | None = None
        while True:
            self._is_answering = False
            request = await asked.get()
            self._is_answering = True
            started_ns = time.monotonic_ns()
            self.counts.requests += 1
            try:
                timing = {} if previous_ms is None else {"prev_total_ms": previous_ms}
                answer: bytes | str = await self._reply(conversation, request, timing)
            except Exception as error:  # whatever it is, the client is told
                self.counts.refused_requests += 1
                answer = text_from_error(error)
            await connection.send(answer)
            previous_ms = (time.monotonic_ns() - started_ns) / 1e6

    async def _reply(
        self, conversation: Conversation, request: _Asked, timing: dict[str, float]
    ) -> bytes:
        """Return the reply to a request; raise what was wrong with it."""
        if isinstance(request.message, Exception):
            raise request.message
        started_ns = time.monotonic_ns()
        reply = await self._thread.answer(conversation, request.message, request.epoch)
        timing["infer_ms"] = (time.monotonic_ns() - started_ns) / 1e6
        return wire_from_data(reply | {"server_timing": timing, "epoch": request.epoch})


def _websockets() -> Any:  # noqa: ANN401 - a module
    """Return the door to websockets.

    Raises:
        MissingPartError: it is not installed.
    """
    try:
        from websockets.asyncio import server
    except ImportError as error:
        raise MissingPartError(
            f"serving needs websockets ({error}): pip install 'memorywam[serve]'"
        ) from error
    return server


def _open_state() -> object:
    """Return the state of a link that nobody has begun to close."""
    from websockets.protocol import State

    return State.OPEN


def _is_closed(error: Exception) -> bool:
    """Return whether an error is the end of a link."""
    with contextlib.suppress(ImportError):
        from websockets.exceptions import ConnectionClosed

        return isinstance(error, ConnectionClosed)
    return False
