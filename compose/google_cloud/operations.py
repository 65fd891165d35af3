"""Long-running operations: each waits its delay, then brings its effect about, and is kept for whoever asks for it."""

import asyncio
import secrets
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from compose.google_cloud.planes import PlaneFailed
from compose.google_cloud.serving import Call
from compose.google_cloud.world import Delays

Api = Literal["compute", "sqladmin", "redis"]
Status = Literal["PENDING", "RUNNING", "DONE"]
Effect = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Failure:
    """Why an operation failed."""

    code: str
    message: str
    http_status: int = 500


class OperationFailed(Exception):
    """Raised by an effect that ends its operation with an error of the API's own."""

    def __init__(self, code: str, message: str, http_status: int = 400) -> None:
        super().__init__(message)
        self.failure = Failure(code, message, http_status)


@dataclass
class Operation:
    """One of them."""

    api: Api
    method: str
    kind: str
    """The API's own word: stop, UPDATE, update."""
    target: str
    location: str
    user: str
    delay_seconds: float
    request_id: str | None = None
    name: str = field(default_factory=lambda: str(uuid.uuid4()))
    number: int = field(default_factory=lambda: secrets.randbelow(2**60) + 2**60)
    inserted: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: datetime | None = None
    ended: datetime | None = None
    status: Status = "PENDING"
    failure: Failure | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def progress(self) -> int:
        """Percent, by its delay."""
        if self.status == "DONE":
            return 100
        if self.started is None or self.delay_seconds <= 0:
            return 0
        return min(99, int(100 * (datetime.now(UTC) - self.started).total_seconds() / self.delay_seconds))


class Operations:
    """All operations of the project."""

    def __init__(self, delays: Delays) -> None:
        self.delays = delays
        self._all: dict[str, Operation] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(
        self,
        call: Call,
        api: Api,
        kind: str,
        target: str,
        location: str,
        effect: Effect | None,
        undo: Callable[[], None] = lambda: None,
    ) -> Operation:
        """Start one for this call; `undo` sets the record back when it fails. Without an effect it is done at once."""
        operation = Operation(
            api=api,
            method=call.method.id,
            kind=kind,
            target=target,
            location=location,
            user=call.identity.email,
            delay_seconds=next(
                (fault.operation_seconds for fault in call.faults if fault.operation_seconds is not None), self.delays.of(call.method.id)
            ),
            request_id=call.query.get("requestId"),
        )
        if api == "compute":
            operation.name = f"operation-{operation.number}-{operation.name[:13]}"
        self._all[operation.name] = operation
        call.settle("began")
        fate = next((fault for fault in call.faults if fault.operation is not None), None)
        if effect is None:
            _end(operation, None)
        elif fate is None:
            self._run(self._carried_out(operation, effect, undo))
        elif fate.operation == "error":
            failure = Failure(fate.operation_code, fate.operation_message, fate.operation_status)
            self._run(self._carried_out(operation, lambda: _failing(failure), undo))
        else:
            operation.status, operation.started = "RUNNING", datetime.now(UTC)
        return operation

    def note(self, api: Api, kind: str, target: str, location: str) -> None:
        """An operation of the cloud's own, which is over."""
        operation = Operation(api, kind, kind, target, location, "system", 0)
        operation.name = f"systemevent-{operation.number}-{operation.name[:13]}"
        self._all[operation.name] = operation
        _end(operation, None)

    def find(self, api: Api, name: str) -> Operation | None:
        """By name, or by number as Compute Engine also has it."""
        found = self._all.get(name) or next((one for one in self._all.values() if str(one.number) == name), None)
        return found if found is not None and found.api == api else None

    def repeated(self, call: Call, target: str) -> Operation | None:
        """The operation that an earlier call with the same requestId began; None where this is the first."""
        request_id = call.query.get("requestId")
        if request_id is None:
            return None
        same = (one for one in self._all.values() if (one.request_id, one.method, one.target) == (request_id, call.method.id, target))
        return next(same, None)

    def of(self, api: Api) -> list[Operation]:
        """All of an API's, the newest first."""
        return [one for one in reversed(self._all.values()) if one.api == api]

    def under_way(self, api: Api, target: str) -> Operation | None:
        """The one that keeps an instance busy."""
        return next((one for one in self.of(api) if one.target == target and one.status != "DONE"), None)

    async def clear(self) -> None:
        """End all, finished or not, and forget them."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for operation in self._all.values():
            operation.done.set()
        self._all.clear()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carried_out(self, operation: Operation, effect: Effect, undo: Callable[[], None]) -> None:
        operation.status, operation.started = "RUNNING", datetime.now(UTC)
        await asyncio.sleep(operation.delay_seconds)
        failure = None
        try:
            await effect()
        except OperationFailed as error:
            failure = error.failure
        except PlaneFailed as error:
            failure = Failure("INTERNAL_ERROR", str(error))
        if failure is not None:
            undo()
        _end(operation, failure)


def _end(operation: Operation, failure: Failure | None) -> None:
    operation.failure = failure
    operation.ended = datetime.now(UTC)
    operation.started = operation.started or operation.ended
    operation.status = "DONE"
    operation.done.set()


async def _failing(failure: Failure) -> None:
    raise OperationFailed(failure.code, failure.message, failure.http_status)
