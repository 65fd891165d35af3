"""What goes wrong in Google Cloud ends as it should, through the tools and probes, and nothing is done twice.

Each failure is set at the simulated control plane. What became of a change is read from its log of received mutations: `began` started
an operation, `repeated` was recognised by its request id, `cut` and `refused` did nothing. The fixture asserts that no exchange violated
Google's documents.
"""

import asyncio
import json
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from blocks.cloud_declared import CloudDeclared, SshDeclared
from blocks.errors import ConfigurationError
from blocks.gcp import GcpProject
from blocks.kinds import Kind
from blocks.schema import Limits, Resource
from compose.certificates import write_domain_certificate
from compose.google_cloud.faults import Fault, Quota
from compose.google_cloud.world import Delays
from tasks.clients.cloud_sql import CloudSqlClient
from tasks.clients.compute_engine import ComputeClient
from tasks.clients.google_access import GoogleCloud
from tasks.clients.google_calls import Repeat
from tasks.clients.google_metrics import Metrics
from tasks.clients.google_snapshots import LISTINGS
from tasks.clients.login import Login
from tasks.clients.memorystore import MemorystoreClient
from tasks.clients.ssh import KeptSsh
from tasks.core.declare import NoArgs
from tasks.core.errors import EvenkeelError, NotApplicable, OutcomeUnknown, ProbeBroken, ToolFailed, Unreachable
from tasks.core.models import Change
from tasks.probes import compute_engine as compute_probe
from tasks.tools.cloud_sql import GrowStorage, ScaleTier, gcp_sql_grow_storage, gcp_sql_restart_instance, gcp_sql_scale_tier
from tasks.tools.compute_engine import gcp_compute_restart_instance, gcp_compute_start_instance, gcp_compute_stop_instance
from tasks.tools.memorystore import ScaleMemory, gcp_redis_failover, gcp_redis_scale_memory
from tests.google_cloud_world import GoogleProject

STOP, START, RESET = (f"compute.instances.{verb}" for verb in ("stop", "start", "reset"))
LIST = "compute.instances.aggregatedList"
RESTART, PATCH = "sql.instances.restart", "sql.instances.patch"
FAILOVER, RESIZE = (f"redis.projects.locations.instances.{verb}" for verb in ("failover", "patch"))
SECONDS = 6.0
"""Long enough that its last try does not end with it: pauses double, and the one after three seconds would be too long."""
TIERS = ("db-g1-small", "db-custom-1-3840")


def resource(kind: Kind, name: str, **cloud: Any) -> Resource:
    """As an inventory declares it, without a login."""
    limits = Limits(tiers=TIERS, storage_gib=40) if kind is Kind.CLOUD_SQL else Limits(memory_gib=4)
    limits = Limits() if kind is Kind.COMPUTE_ENGINE else limits
    logins: dict[Any, str] = {"monitor": "somebody"} if cloud else {}
    return Resource(name=name, kind=kind, address=name, limits=limits, cloud=CloudDeclared(**cloud), logins=logins)


@dataclass
class Shop:
    """The clients of one project, as the execution hands them to tools."""

    cloud: GoogleCloud

    def machine(self, name: str = "web-1", **cloud: Any) -> ComputeClient:
        return ComputeClient(resource(Kind.COMPUTE_ENGINE, name, **cloud), self.cloud)

    def database(self, name: str = "orders") -> CloudSqlClient:
        return CloudSqlClient(resource(Kind.CLOUD_SQL, name), self.cloud)

    def cache(self, name: str = "pages") -> MemorystoreClient:
        return MemorystoreClient(resource(Kind.MEMORYSTORE, name), self.cloud)


@pytest.fixture(scope="module")
def opened(google_records: GoogleProject) -> Iterator[GoogleCloud]:
    """The project's connections, opened when a test needs them."""
    cloud = GoogleCloud(google_records.id, google_records.email(), google_records.credentials())
    yield cloud
    asyncio.run(cloud.close())


@pytest.fixture
async def shop(google_cloud: GoogleProject, opened: GoogleCloud) -> Shop:
    """As the identity that may do everything, with nothing asked before."""
    for kind in KINDS:  # as for an inventory: importing is no part of any call's time
        await opened.load(kind)
        opened.forget(kind)
    opened._metrics = Metrics()
    return Shop(opened)


def outcomes(project: GoogleProject, method: str) -> list[str]:
    """What became of each of the method's mutations; at most one may have begun anything."""
    found = [one.outcome for one in project.admin.mutations(method)]
    assert found.count("began") <= 1
    return found


# A change is sent, and this is what goes wrong with it.

Act = Callable[[Shop], Awaitable[Change]]


def stop(shop: Shop) -> Awaitable[Change]:
    return gcp_compute_stop_instance(shop.machine(), NoArgs())


def start(shop: Shop) -> Awaitable[Change]:
    return gcp_compute_start_instance(shop.machine("web-2"), NoArgs())


def reset(shop: Shop) -> Awaitable[Change]:
    return gcp_compute_restart_instance(shop.machine(), NoArgs())


def restart(shop: Shop) -> Awaitable[Change]:
    return gcp_sql_restart_instance(shop.database(), NoArgs())


def scale_tier(shop: Shop) -> Awaitable[Change]:
    return gcp_sql_scale_tier(shop.database(), ScaleTier(tier=TIERS[1]))


def grow(shop: Shop) -> Awaitable[Change]:
    return gcp_sql_grow_storage(shop.database(), GrowStorage(storage_gib=20))


def fail_over(shop: Shop) -> Awaitable[Change]:
    return gcp_redis_failover(shop.cache(), NoArgs())


def resize(shop: Shop) -> Awaitable[Change]:
    return gcp_redis_scale_memory(shop.cache(), ScaleMemory(memory_gib=2))


@dataclass(frozen=True)
class Case:
    """One failure of a change."""

    name: str
    act: Act
    method: str
    fault: Fault
    outcomes: list[str]
    """What becomes of every mutation that is sent."""
    error: type[EvenkeelError] | None = None
    """None: the tool succeeds."""
    says: str = ""


def once(**what: Any) -> Fault:
    return Fault(**{"times": 1, **what})


LACKS = "lacks the permission {}.*add-iam-policy-binding evenkeel-lab --member=serviceAccount:evenkeel@"
CASES = [
    # Compute Engine: a request id makes repeating safe.
    Case("403, the permission is named", stop, STOP, Fault(deny=STOP), ["refused 403"], ToolFailed, LACKS.format(STOP)),
    Case("404, it is gone meanwhile", stop, STOP, Fault(method=STOP, status=404), ["refused 404"], ToolFailed, "no such thing"),
    Case("429 with Retry-After", stop, STOP, once(method=STOP, status=429, headers={"Retry-After": "1"}), ["refused 429", "began"]),
    Case(
        "403 rateLimitExceeded, as Compute Engine throttles",
        start,
        START,
        once(method=START, status=403, reason="rateLimitExceeded"),
        ["refused 403", "began"],
    ),
    Case("503 before it took effect", start, START, once(method=START, status=503), ["refused 503", "began"]),
    Case("503 after it took effect", stop, STOP, once(method=STOP, status=503, takes_effect=True), ["began", "repeated"]),
    Case("a line cut before", stop, STOP, once(method=STOP, cut=True), ["cut", "began"]),
    Case("a reply lost after it took effect", reset, RESET, once(method=RESET, cut=True, takes_effect=True), ["began", "repeated"]),
    Case(
        "quota for good",
        start,
        START,
        Fault(method=START, status=403, reason="quotaExceeded", message="Quota 'CPUS' exceeded. Limit: 24.0 in region us-central1."),
        ["refused 403"],
        ToolFailed,
        "want of quota.*CPUS",
    ),
    Case(
        "an operation that fails without an HTTP status",
        start,
        START,
        Fault(method=START, operation="error", operation_code="ZONE_RESOURCE_POOL_EXHAUSTED", operation_status=0),
        ["began"],
        ToolFailed,
        "ZONE_RESOURCE_POOL_EXHAUSTED",
    ),
    Case(
        "questions after an operation that are refused",
        stop,
        STOP,
        Fault(method="compute.zoneOperations.get", status=429, times=2),
        ["began"],
    ),
    Case(
        "an operation whose end must not be seen",
        stop,
        STOP,
        Fault(deny="compute.zoneOperations.get"),
        ["began"],
        OutcomeUnknown,
        "it was begun, and its end can't be seen",
    ),
    # Cloud SQL: nothing makes repeating safe; what was begun is found among the operations.
    Case("403 that names no permission", restart, RESTART, Fault(deny="*.restart"), ["refused 403"], ToolFailed, "gcp_check` lists"),
    Case("429 of Cloud SQL", restart, RESTART, once(method=RESTART, status=429), ["refused 429", "began"]),
    Case("409, another operation", restart, RESTART, Fault(method=RESTART, status=409), ["refused 409"], NotApplicable, "wrong state"),
    Case("412, another change came first", grow, PATCH, Fault(method=PATCH, status=412), ["refused 412"], NotApplicable, "wrong state"),
    Case("a lost restart, begun", restart, RESTART, once(method=RESTART, cut=True, takes_effect=True), ["began"]),
    Case("a lost restart, not begun", restart, RESTART, once(method=RESTART, cut=True), ["cut"], OutcomeUnknown, "reply was lost"),
    Case("503 of a restart, begun", scale_tier, PATCH, once(method=PATCH, status=503, takes_effect=True), ["began"]),
    Case("503 of a restart, not begun", restart, RESTART, once(method=RESTART, status=503), ["refused 503"], OutcomeUnknown, "503"),
    Case(
        "a failed change of the tier",
        scale_tier,
        PATCH,
        Fault(method=PATCH, operation="error", operation_message="The tier is not available."),
        ["began"],
        ToolFailed,
        "The tier is not available",
    ),
    Case("questions after a restart that are lost", restart, RESTART, Fault(method="sql.operations.get", cut=True, times=2), ["began"]),
    # Memorystore.
    Case(
        "403 of Memorystore",
        fail_over,
        FAILOVER,
        Fault(deny="redis.instances.*over"),
        ["refused 403"],
        ToolFailed,
        r"redis\.instances\.failover",
    ),
    Case("a lost failover, begun", fail_over, FAILOVER, once(method=FAILOVER, cut=True, takes_effect=True), ["began"]),
    Case("a lost resize, not begun", resize, RESIZE, once(method=RESIZE, cut=True), ["cut"], OutcomeUnknown, "reply was lost"),
    Case(
        "a failover that fails",
        fail_over,
        FAILOVER,
        Fault(method=FAILOVER, operation="error", operation_code="FAILED_PRECONDITION", operation_message="The replica is behind."),
        ["began"],
        ToolFailed,
        "9 The replica is behind",
    ),
    Case("409 of Memorystore", resize, RESIZE, Fault(method=RESIZE, status=409), ["refused 409"], NotApplicable, "wrong state"),
    Case("503 while the change goes on", resize, RESIZE, Fault(method="redis.*.operations.get", status=503, times=2), ["began"]),
    # Credentials.
    Case("a token that has expired", stop, STOP, once(method=STOP, status=401), ["refused 401", "began"]),
    Case("a token of Cloud SQL that has expired", restart, RESTART, once(method=RESTART, status=401), ["refused 401", "began"]),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_a_change_that_goes_wrong_is_done_once_or_not_at_all(google_cloud: GoogleProject, shop: Shop, case: Case) -> None:
    google_cloud.admin.add(case.fault)
    if case.error is None:
        change = await case.act(shop)
        assert change.after
    else:
        with pytest.raises(case.error) as caught:
            await case.act(shop)
        assert type(caught.value) is case.error
        assert re.search(case.says, str(caught.value)), str(caught.value)
    assert outcomes(google_cloud, case.method) == case.outcomes


@pytest.mark.slow
async def test_an_operation_that_never_ends_is_left_to_itself_and_taken_up_by_whoever_comes_next(
    google_cloud: GoogleProject, shop: Shop
) -> None:
    google_cloud.admin.add(Fault(method=RESTART, operation="stuck"))

    def waiting(shop: Shop) -> Awaitable[str]:
        where = {"project": google_cloud.id, "instance": "orders"}
        return shop.database().carry_out("restart", "RESTART", lambda api: api.restart(**where), seconds=4)

    for _ in range(2):  # the second time as after a crash: nothing is known of the first
        with pytest.raises(OutcomeUnknown, match="still runs after"):
            await waiting(Shop(shop.cloud))
    assert outcomes(google_cloud, RESTART) == ["began"]


async def test_after_a_crash_what_was_begun_is_awaited_and_not_begun_again(google_cloud: GoogleProject, shop: Shop) -> None:
    google_cloud.admin.set_delays(Delays(operation_seconds=2))

    def resize_other(shop: Shop) -> Awaitable[Change]:
        return gcp_redis_scale_memory(shop.cache("queue"), ScaleMemory(memory_gib=2))

    async def begun_and_taken_up(begin: Act, method: str) -> Change:
        first = asyncio.ensure_future(begin(shop))
        end = time.monotonic() + 20
        while "began" not in outcomes(google_cloud, method):
            assert time.monotonic() < end
            assert not first.done(), first
            await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        return await begin(shop)

    begun = {START: start, STOP: stop, RESTART: restart, FAILOVER: fail_over, RESIZE: resize_other}
    changes = await asyncio.gather(*(begun_and_taken_up(begin, method) for method, begin in begun.items()))
    assert all(change.after for change in changes)
    assert {method: outcomes(google_cloud, method) for method in begun} == {method: ["began"] for method in begun}


# Reading.

KINDS = {
    Kind.COMPUTE_ENGINE: (LIST, {"web-1", "web-2"}, "us-central1-a"),
    Kind.CLOUD_SQL: ("sql.instances.list", {"orders", "ledger"}, "us-central1"),
    Kind.MEMORYSTORE: ("redis.projects.locations.instances.list", {"pages", "queue"}, "us-central1"),
}
PASSING = {
    "503 twice": Fault(status=503, times=2),
    "429 with Retry-After": Fault(status=429, headers={"Retry-After": "1"}, times=1),
    "a line cut": Fault(cut=True, times=1),
    "a quota that is used up for a second": Fault(quota=Quota(calls=0, seconds=1), times=1),
}


@pytest.mark.parametrize("name", PASSING)
async def test_what_passes_is_outlasted(google_cloud: GoogleProject, shop: Shop, name: str) -> None:
    async def listed(kind: Kind) -> set[str]:
        google_cloud.admin.add(PASSING[name].model_copy(update={"method": KINDS[kind][0]}))
        return {one.name for one in (await shop.cloud.snapshot(kind)).instances}

    started = time.monotonic()
    assert await asyncio.gather(*(listed(kind) for kind in KINDS)) == [names for _, names, _ in KINDS.values()]
    if PASSING[name].headers:
        assert time.monotonic() - started >= 1


LASTING: dict[str, tuple[Fault, type[EvenkeelError], str]] = {
    "503 on and on": (Fault(status=503), Unreachable, "no answer, nothing was changed.*503"),
    "no answer": (Fault(hang_seconds=60), Unreachable, "no answer, nothing was changed"),
    "a quota that is used up": (Fault(quota=Quota(calls=0, seconds=600)), ToolFailed, "want of quota"),
    "an API that is not enabled": (
        Fault(status=403, reason="accessNotConfigured", message="Cloud API has not been used in project 42 before or it is disabled."),
        ToolFailed,
        "enable it with `gcloud services enable`",
    ),
    "a permission that is lacking": (Fault(deny="*.list"), ToolFailed, "evenkeel@evenkeel-lab.iam.gserviceaccount.com lacks .* permission"),
    "a project that is not there": (Fault(status=404), ToolFailed, "no such thing in project evenkeel-lab"),
}


LONG = {"503 on and on", "no answer"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in LASTING])
async def test_what_lasts_is_told_with_its_remedy(google_cloud: GoogleProject, shop: Shop, name: str) -> None:
    fault, error, says = LASTING[name]
    seconds = 3 if error is Unreachable else 20

    async def failing(kind: Kind) -> None:
        google_cloud.admin.add(fault.model_copy(update={"method": KINDS[kind][0]}))
        with pytest.raises(error, match=says) as caught:
            await shop.cloud.call("list", lambda timeout: LISTINGS[kind].read(shop.cloud, timeout), seconds=seconds)
        assert type(caught.value) is error

    await asyncio.gather(*(failing(kind) for kind in KINDS))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_location_that_does_not_answer_makes_its_instances_unknown_and_no_others(
    google_cloud: GoogleProject, shop: Shop, kind: Kind
) -> None:
    _, names, place = KINDS[kind]
    google_cloud.admin.add(Fault(unreachable=("us-central1", "us-central1-a")))
    snapshot = await shop.cloud.snapshot(kind)
    assert snapshot.unreachable == (place,)
    (here,) = {one.name for one in snapshot.instances}
    (there,) = names - {here}
    with pytest.raises(ProbeBroken, match=f"does not reach {place}"):
        snapshot.find(resource(kind, there))
    assert snapshot.find(resource(kind, here)) is not None


MONITORING = {
    "403": (Fault(deny="monitoring.timeSeries.list"), "lacks the permission monitoring.timeSeries.list"),
    "a gap": (Fault(metric_gap_seconds=3600), "no points"),
    "no answer": (Fault(hang_seconds=60), "within"),
}


@pytest.mark.parametrize("name", ["403", "a gap", pytest.param("no answer", marks=pytest.mark.slow)])
async def test_a_machine_s_state_is_known_also_where_monitoring_gives_nothing(google_cloud: GoogleProject, shop: Shop, name: str) -> None:
    fault, problem = MONITORING[name]
    google_cloud.admin.add(fault.model_copy(update={"method": "monitoring.*"}))
    machine = shop.machine()
    values = (await compute_probe.measure(machine, machine.resource)).values
    assert (values["state"], values["source"], values["memory_percent"]) == ("RUNNING", None, None)
    assert re.search(problem, str(values["metrics_error"])), values["metrics_error"]


@pytest.mark.slow
async def test_a_frozen_machine_is_measured_by_monitoring(google_cloud: GoogleProject, shop: Shop) -> None:
    async def address() -> str:
        return "127.0.0.1"

    # What is frozen still takes connections, and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        key = asyncssh.generate_private_key("ssh-ed25519")
        pinned = (key.export_public_key().decode("ascii").strip(),)
        machine = shop.machine(ssh=SshDeclared(host="127.0.0.1", port=port, host_keys=pinned))
        login = Login("somebody", key.export_private_key().decode("ascii"))
        machine.ssh = KeptSsh(name="web-1", address=address, port=port, host_keys=pinned, login=login)
        values = (await compute_probe.measure(machine, machine.resource)).values
        await machine.ssh.close()
    assert (values["state"], values["inside"], values["source"]) == ("RUNNING", "hangs", "monitoring")
    assert values["memory_percent"]
    assert await gcp_compute_restart_instance(shop.machine(), NoArgs())
    assert outcomes(google_cloud, RESET) == ["began"]


# Credentials and the way to Google.


def changed_key(project: GoogleProject, **changes: str) -> str:
    """The identity's key with something else in it."""
    return json.dumps({**json.loads(project.key_path().read_text(encoding="utf-8")), **changes})


async def refused(project: GoogleProject, key: str | None, impersonate: str | None = None) -> list[EvenkeelError]:
    """What lists end with under these credentials: Compute Engine gets a token that they sign, Cloud SQL one that is made for them."""
    credentials, identity = await GcpProject(project=project.id, service_account=key, impersonate=impersonate).credentials()
    cloud = GoogleCloud(project.id, identity, credentials)
    try:
        found = await asyncio.gather(*map(cloud.snapshot, (Kind.COMPUTE_ENGINE, Kind.CLOUD_SQL)), return_exceptions=True)
    finally:
        await cloud.close()
    assert all(isinstance(one, EvenkeelError) for one in found), found
    return [one for one in found if isinstance(one, EvenkeelError)]


async def test_a_key_that_is_not_valid_is_told_without_showing_it(google_cloud: GoogleProject) -> None:
    other = json.loads(google_cloud.key_path("reader").read_text(encoding="utf-8"))["private_key"]
    email = google_cloud.email("gone")
    for error in await refused(google_cloud, changed_key(google_cloud, private_key=other)):
        assert isinstance(error, ToolFailed)
        assert f"Google refuses the credentials of {google_cloud.email()}" in str(error)
        assert "PRIVATE KEY" not in str(error)
    assert all(email in str(error) for error in await refused(google_cloud, changed_key(google_cloud, client_email=email)))
    for error in await refused(google_cloud, changed_key(google_cloud), google_cloud.email("nobody")):
        assert isinstance(error, ToolFailed)
        assert "getAccessToken" in str(error)


async def test_what_is_no_key_or_none_at_all_is_told_where_it_is_configured(
    google_cloud: GoogleProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"gcp\.service_account: no credentials can be made of it") as broken:
        await GcpProject(project=google_cloud.id, service_account=changed_key(google_cloud, private_key="-----BEGIN nothing")).credentials()
    assert "BEGIN nothing" not in str(broken.value)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(ConfigurationError, match="no Application Default Credentials"):
        await GcpProject(project="another-project", service_account=None).credentials()


@pytest.mark.slow
async def test_a_token_endpoint_that_is_down_is_outlasted_or_nothing_is_sent(google_cloud: GoogleProject) -> None:
    cloud = GoogleCloud(google_cloud.id, google_cloud.email(), google_cloud.credentials())
    google_cloud.admin.add(Fault(method="oauth2.token", status=503))
    await cloud.load(Kind.CLOUD_SQL)
    with pytest.raises(Unreachable):
        await listing(cloud)
    google_cloud.admin.remove()
    google_cloud.admin.add(Fault(method="oauth2.token", status=503, times=1))
    await restarting(cloud)
    await cloud.close()
    assert outcomes(google_cloud, RESTART) == ["began"]


def listing(cloud: GoogleCloud) -> Awaitable[object]:
    """Every database."""
    return cloud.call("list", lambda timeout: LISTINGS[Kind.CLOUD_SQL].read(cloud, timeout), seconds=SECONDS)


def restarting(cloud: GoogleCloud) -> Awaitable[object]:
    """A restart, which nothing makes safe to repeat."""

    def send(timeout: float) -> object:
        return cloud.execute(cloud.sql.instances().restart(project=cloud.project, instance="orders"), timeout)

    return cloud.call("restart", send, repeat=Repeat.NEVER, seconds=SECONDS)


@pytest.mark.slow
async def test_a_way_that_leads_nowhere_changes_nothing(
    google_cloud: GoogleProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    write_domain_certificate(tmp_path, tmp_path, "*.example.com", "other")
    for variable, value in (("https_proxy", nowhere), ("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.crt"))):
        with monkeypatch.context() as patched:
            patched.setenv(variable, value)
            cloud = GoogleCloud(google_cloud.id, google_cloud.email(), google_cloud.credentials())
            await cloud.load(Kind.CLOUD_SQL)
            found = await asyncio.gather(listing(cloud), restarting(cloud), return_exceptions=True)
            await cloud.close()
        assert [type(one) for one in found] == [Unreachable, Unreachable], found
    assert google_cloud.admin.mutations() == []
