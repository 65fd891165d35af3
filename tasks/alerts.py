"""The receiver of alerts: HTTP, for Prometheus's Alertmanager and whatever speaks its webhook format."""

import asyncio
import contextlib
import hmac
import math
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from logging import Logger
from typing import Any

import uvicorn
from prefect import get_run_logger
from prefect.logging.loggers import LoggingAdapter
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from blocks.schema import Inventory
from tasks.core.alerts import NotUnderstood, cause_of, plain, read_notification, resources_of
from tasks.core.errors import EvenkeelError
from tasks.watching import Watching

PATH = "/alerts"
MAX_BODY_BYTES = 1024 * 1024
BODY_SECONDS = 5.0
BIND_SECONDS = 20.0
STOP_SECONDS = 3
UNMATCHED_KEPT = 100


class CannotListen(EvenkeelError):
    """The address can't be listened on; the message says why."""


@dataclass
class Receiver:
    """Takes notifications and offers what they are about to the watching."""

    inventory: Inventory
    token: SecretStr
    watching: Watching
    alerts: int = 0
    unmatched: int = 0
    unmatched_labels: dict[str, int] = field(default_factory=dict)
    """What no resource was found for -> how often it came; the latest hundred."""
    logger: Logger | LoggingAdapter = field(default_factory=get_run_logger)

    @property
    def application(self) -> Starlette:
        """As a web application of one route."""
        return Starlette(routes=[Route(PATH, self.receive, methods=["POST"])])

    async def receive(self, request: Request) -> Response:
        """Answer one notification: 200 with what became of it, 400, 401, 408, 413 or 429 with the reason."""
        if not self._is_known(request.headers.get("authorization", "")):
            remedy = "send Authorization: Bearer TOKEN, with the token of the inventory's section `alerts`"
            return _error(401, f"authorization: is missing or wrong; {remedy}", {"www-authenticate": "Bearer"})
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(request)
        except TimeoutError:
            return _error(408, f"body: did not come within {BODY_SECONDS:g} s")
        except ClientDisconnect:
            return _error(400, "body: ended early")
        if body is None:
            return _error(413, f"body: is longer than {MAX_BODY_BYTES} bytes; set max_alerts in Alertmanager's webhook_configs")
        try:
            notification = read_notification(body)
        except NotUnderstood as error:
            return _error(400, str(error))
        firing = [alert.labels for alert in notification.alerts if alert.status == "firing"]
        self.alerts += len(firing)
        causes: dict[str, str] = {}
        unknown = 0
        for labels in firing:
            names = resources_of(labels, self.inventory)
            for name in names:
                causes.setdefault(name, cause_of(labels))
            if not names:
                unknown += 1
                self._keep_unmatched(labels)
        offered = self.watching.offer(causes)
        told = {"looked_at": offered.looked_at, "already": offered.already, "dropped": offered.dropped, "unknown": unknown}
        if offered.dropped:
            seconds = math.ceil(offered.retry_seconds)
            said = f"alerts: too many to look at {', '.join(offered.dropped)}; try again in {seconds} s"
            return _error(429, said, {"retry-after": str(seconds)}, told)
        return JSONResponse(told)

    def _is_known(self, header: str) -> bool:
        scheme, _, given = header.partition(" ")
        wanted = self.token.get_secret_value().encode()
        return hmac.compare_digest(given.strip().encode(), wanted) and scheme.lower() == "bearer"

    def _keep_unmatched(self, labels: Mapping[str, str]) -> None:
        self.unmatched += 1
        shown = ", ".join(f"{plain(name)}={plain(value)}" for name, value in sorted(labels.items())[:10])
        times = self.unmatched_labels.pop(shown, 0) + 1
        self.unmatched_labels[shown] = times
        while len(self.unmatched_labels) > UNMATCHED_KEPT:
            self.unmatched_labels.pop(next(iter(self.unmatched_labels)))
        if times == 1:
            remedy = "give it the label evenkeel_resource with a resource's name"
            self.logger.warning("an alert is about no resource of %s: %s; %s", self.inventory.name, shown, remedy)


async def _body(request: Request) -> bytes | None:
    """The whole body; None where it is too long."""
    parts: list[bytes] = []
    length = 0
    async for part in request.stream():
        length += len(part)
        if length > MAX_BODY_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


def _error(status: int, said: str, headers: Mapping[str, str] | None = None, told: Mapping[str, Any] | None = None) -> Response:
    return JSONResponse({"error": said, **(told or {})}, status_code=status, headers=dict(headers or {}))


class _Server(uvicorn.Server):
    """A part of a flow: the signals are the flow's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Capture none."""
        yield


@asynccontextmanager
async def receiving(receiver: Receiver, listen: str) -> AsyncIterator[str]:
    """Receive alerts at host:port; gives the URL to post to. CannotListen where the address is taken for longer than 20 s."""
    listening = await _listening(listen)
    host, port = listening.getsockname()[:2]
    config = uvicorn.Config(
        receiver.application,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        limit_concurrency=100,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}{PATH}"
    finally:
        server.should_exit = True
        await serving
        listening.close()


async def _listening(listen: str) -> socket.socket:
    """A listening socket; the run before may still have the address for a moment."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    deadline = asyncio.get_running_loop().time() + BIND_SECONDS
    while True:
        try:
            return socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128)
        except OSError as error:
            if asyncio.get_running_loop().time() >= deadline:
                raise CannotListen(f"alerts.listen: {listen}: {error.strerror or error}; choose another address") from error
        await asyncio.sleep(0.2)
