"""One project of Google Cloud: its APIs, shared by all of its resources in a process."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from blocks.kinds import Kind
from tasks.clients.google_calls import Repeat, google_call
from tasks.clients.google_errors import Who
from tasks.clients.google_metrics import Metrics, Point
from tasks.clients.google_operations import Operation, wait_until_done
from tasks.clients.google_session import SessionHttp, open_session
from tasks.clients.google_snapshots import LISTINGS, Snapshot
from tasks.core.errors import EvenkeelError, OutcomeUnknown

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from google.cloud import compute_v1, monitoring_v3, redis_v1

T = TypeVar("T")
READ_SECONDS = 10.0
SEND_SECONDS = 30.0
SHARED_SECONDS = 1.0
"""So old may be what probes share."""


def _unheard(_what: str, _percent: float | None) -> None:
    return None


@dataclass
class GoogleCloud:
    """The APIs of one project under one identity. Clients open when they are first needed, in the thread of that call.

    Each client's method gets `timeout=` and `retry=None`: deadlines and repeats are those of `call`.
    """

    project: str
    identity: str
    credentials: "Credentials" = field(repr=False)
    progress: Callable[[str, float | None], None] = _unheard
    """Hears of operations under way: what is done, and how far it has come in percent, where Google says so."""
    _opened: list[Any] = field(default_factory=list, init=False, repr=False)
    _snapshots: dict[Kind, tuple[float, asyncio.Task[Snapshot]]] = field(default_factory=dict, init=False, repr=False)
    _metrics: Metrics = field(default_factory=Metrics, init=False, repr=False)

    @property
    def who(self) -> Who:
        """For messages."""
        return Who(self.project, self.identity)

    @cached_property
    def instances(self) -> "compute_v1.InstancesClient":
        """Compute Engine's instances. Mutations: `start_unary` and the like, never `start`, whose result polls by itself."""
        from google.cloud import compute_v1

        client = compute_v1.InstancesClient(credentials=self.credentials)
        self._opened.append(client.transport)
        return client

    @cached_property
    def zone_operations(self) -> "compute_v1.ZoneOperationsClient":
        """Compute Engine's operations."""
        from google.cloud import compute_v1

        client = compute_v1.ZoneOperationsClient(credentials=self.credentials)
        self._opened.append(client.transport)
        return client

    @cached_property
    def redis(self) -> "redis_v1.CloudRedisClient":
        """Memorystore."""
        from google.cloud import redis_v1

        client = redis_v1.CloudRedisClient(credentials=self.credentials, transport="rest")
        self._opened.append(client.transport)
        return client

    @cached_property
    def metric_service(self) -> "monitoring_v3.MetricServiceClient":
        """Cloud Monitoring, over gRPC."""
        from google.cloud import monitoring_v3
        from google.cloud.monitoring_v3.services.metric_service.transports import MetricServiceGrpcTransport

        def own_channel(*given: Any, options: Sequence[tuple[str, Any]] = (), **further: Any) -> Any:
            # Else gRPC hands on a connection that this process has to the same host, whatever way that went.
            return MetricServiceGrpcTransport.create_channel(*given, options=[*options, ("grpc.use_local_subchannel_pool", 1)], **further)

        transport = MetricServiceGrpcTransport(credentials=self.credentials, channel=own_channel)
        client = monitoring_v3.MetricServiceClient(transport=transport)
        self._opened.append(client.transport)
        return client

    @cached_property
    def sql(self) -> Any:
        """Cloud SQL Admin v1; its requests are sent by `execute`."""
        return self._discovered("sqladmin", "v1")

    @cached_property
    def redis_operations(self) -> Any:
        """Memorystore as its discovery document has it, for operations, which are plain dicts here; sent by `execute`."""
        return self._discovered("redis", "v1")

    @cached_property
    def projects(self) -> Any:
        """Resource Manager's projects, which tell what an identity may do; sent by `execute`."""
        return self._discovered("cloudresourcemanager", "v1").projects()

    @cached_property
    def _session(self) -> Any:
        session = open_session(self.credentials)
        self._opened.append(session)
        return session

    def _discovered(self, api: str, version: str) -> Any:
        from googleapiclient import discovery

        http = SessionHttp(self._session, READ_SECONDS)
        return discovery.build(api, version, http=http, static_discovery=True, cache_discovery=False)

    def execute(self, request: Any, timeout_seconds: float) -> Any:
        """Send a request that one of the discovered APIs made, once. Blocks: for within `call`."""
        return request.execute(http=SessionHttp(self._session, timeout_seconds), num_retries=0)

    async def call(self, what: str, send: Callable[[float], T], *, repeat: Repeat = Repeat.READ, seconds: float = READ_SECONDS) -> T:
        """`google_call` under this project's identity."""
        return await google_call(what, send, repeat=repeat, deadline_seconds=seconds, who=self.who)

    async def load(self, kind: Kind) -> None:
        """Import and open what the kind's list and metrics need, which takes seconds once a process, outside of any call's deadline."""
        await asyncio.to_thread(lambda: (LISTINGS[kind].load(self), self.metric_service))

    async def snapshot(self, kind: Kind) -> Snapshot:
        """Every instance of the kind, by one list call that all who ask within a second share, its error included.

        Unreachable or ToolFailed where it can't be listed; what did not answer is named in the snapshot.
        """
        held = self._snapshots.get(kind)
        if held is None or (held[1].done() and time.monotonic() - held[0] > SHARED_SECONDS):
            held = time.monotonic(), asyncio.ensure_future(self._listed(kind))
            held[1].add_done_callback(lambda task: task.cancelled() or task.exception())  # whoever asked may have gone
            self._snapshots[kind] = held
        return await asyncio.shield(held[1])

    def forget(self, kind: Kind) -> None:
        """Let nobody share what was listed before: something has changed."""
        self._snapshots.pop(kind, None)

    async def _listed(self, kind: Kind) -> Snapshot:
        listing = LISTINGS[kind]
        await asyncio.to_thread(listing.load, self)
        return await self.call(f"list of {kind}", lambda timeout: listing.read(self, timeout))

    async def metrics(self, kind: Kind, metric: str, where: str = "") -> Mapping[str, Point]:
        """The newest point of a metric for every instance of the kind, by one query that is shared for some seconds.

        Keys: the numeric id (Compute Engine), project:instance (Cloud SQL), the full resource name (Memorystore). `where` narrows
        the filter, such as `metric.labels.state = "used"`; of several series of one instance the highest value counts.
        """
        return await self._metrics.newest(self, kind, metric, where)

    async def wait(self, what: str, operation: Operation, *, seconds: float) -> None:
        """Wait for an operation under way. ToolFailed: it failed. OutcomeUnknown: its end was not seen within `seconds`."""
        await wait_until_done(self, what, operation, seconds)

    async def carry_out(
        self,
        what: str,
        kind: Kind,
        type_of_operation: str,
        *,
        listed: Callable[[float], Sequence[Operation]],
        send: Callable[[float], Operation],
        repeat: Repeat = Repeat.NEVER,
        seconds: float,
    ) -> str:
        """Start an operation and wait for its end, or take up one of the same type that runs on the target already. Answers its name.

        `listed` reads the target's operations, `send` starts one; both block and get their timeout. Where the reply of `send` was
        lost, an operation that was not there before is the one that it started, so nothing is sent twice.
        """
        ends_at = time.monotonic() + seconds
        before = await self.call(f"operations of {what}", listed)
        operation = next((one for one in before if one.type == type_of_operation and not one.done), None)
        if operation is not None:
            self.progress(f"{what}: taken up where it stands, operation {operation.name}", None)
        else:
            try:
                operation = await self.call(what, send, repeat=repeat, seconds=min(SEND_SECONDS, seconds))
            except OutcomeUnknown as lost:
                operation = await self._started(what, type_of_operation, listed, {one.name for one in before}, lost)
        try:
            await self.wait(what, operation, seconds=max(ends_at - time.monotonic(), 1))
        finally:
            self.forget(kind)
        return operation.name

    async def _started(
        self, what: str, type_of_operation: str, listed: Callable[[float], Sequence[Operation]], known: set[str], lost: OutcomeUnknown
    ) -> Operation:
        """The operation that a call started whose reply was `lost`, which is raised where it is not found or can't be looked for."""
        try:
            now = await self.call(f"operations of {what}", listed)
        except EvenkeelError as error:
            raise lost from error
        found = next((one for one in now if one.type == type_of_operation and one.name not in known), None)
        if found is None:
            raise lost
        return found

    async def close(self) -> None:
        """Close every connection, and drop what is shared."""
        for _, task in self._snapshots.values():
            task.cancel()
        self._snapshots.clear()
        opened, self._opened = self._opened, []
        for one in opened:
            await asyncio.to_thread(one.close)
