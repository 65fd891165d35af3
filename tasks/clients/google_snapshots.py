"""Every instance of a kind by one list call."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from blocks.kinds import Kind
from blocks.schema import Resource
from tasks.core.errors import ProbeBroken

if TYPE_CHECKING:
    from tasks.clients.google_access import GoogleCloud

PAGE = 500
UNREACHABLE = "UNREACHABLE"


@dataclass(frozen=True)
class CloudInstance:
    """One instance as it was listed."""

    name: str
    location: str
    """Its zone (Compute Engine) or region."""
    state: str
    """Google's word for it, such as RUNNING, RUNNABLE or READY."""
    labels: Mapping[str, str]
    raw: Any = field(repr=False)
    """compute_v1.Instance, redis_v1.Instance, or of Cloud SQL a dict."""


@dataclass(frozen=True)
class Snapshot:
    """What was listed of a kind, and which locations did not answer."""

    kind: Kind
    project: str
    instances: tuple[CloudInstance, ...]
    unreachable: tuple[str, ...] = ()

    @cached_property
    def _by_name(self) -> dict[str, list[CloudInstance]]:
        named: dict[str, list[CloudInstance]] = {}
        for one in self.instances:
            named.setdefault(one.name, []).append(one)
        return named

    def find(self, resource: Resource) -> CloudInstance | None:
        """The resource's instance, or None where there is none.

        ProbeBroken: its name stands in several locations and none is declared, or it may be in one that did not answer.
        """
        location = resource.cloud.location
        found = [one for one in self._by_name.get(resource.address, ()) if location in {None, one.location}]
        if len(found) > 1:
            places = ", ".join(sorted(one.location for one in found))
            raise ProbeBroken(f"cloud.location: {resource.address} is in {places}; say which is meant")
        if found:
            return found[0]
        hidden = [place for place in self.unreachable if location is None or place in location or location in place]
        if hidden:
            raise ProbeBroken(f"Google does not reach {', '.join(hidden)}, so nothing is known of {resource.address}")
        return None


@dataclass(frozen=True)
class Listing:
    """How a kind is listed; both block, and are called in a thread."""

    load: Callable[["GoogleCloud"], object]
    read: Callable[["GoogleCloud", float], Snapshot]


def _compute(cloud: "GoogleCloud", timeout: float) -> Snapshot:
    from google.cloud import compute_v1

    request = compute_v1.AggregatedListInstancesRequest(project=cloud.project, max_results=PAGE)
    found: list[CloudInstance] = []
    unreachable: set[str] = set()
    for page in cloud.instances.aggregated_list(request, timeout=timeout, retry=None).pages:
        unreachable |= set(page.unreachables)
        for place, scope in page.items.items():
            if getattr(scope.warning, "code", "") == UNREACHABLE:
                unreachable.add(place)
            for one in scope.instances:
                found.append(CloudInstance(one.name, _last(place), one.status, dict(one.labels), one))  # noqa: PERF401
    return Snapshot(Kind.COMPUTE_ENGINE, cloud.project, tuple(found), tuple(sorted(map(_last, unreachable))))


def _cloud_sql(cloud: "GoogleCloud", timeout: float) -> Snapshot:
    found: list[CloudInstance] = []
    unreachable: set[str] = set()
    for page in _sql_pages(cloud, timeout):
        unreachable |= {
            str(one.get("region") or "a region") for one in page.get("warnings") or () if one.get("code") == "REGION_UNREACHABLE"
        }
        for one in page.get("items") or ():
            labels = (one.get("settings") or {}).get("userLabels") or {}
            found.append(CloudInstance(one["name"], one.get("region", ""), one.get("state", ""), labels, one))
    return Snapshot(Kind.CLOUD_SQL, cloud.project, tuple(found), tuple(sorted(unreachable)))


def _sql_pages(cloud: "GoogleCloud", timeout: float) -> Iterator[Any]:
    api = cloud.sql.instances()
    request = api.list(project=cloud.project, maxResults=PAGE)
    while request is not None:
        page = cloud.execute(request, timeout)
        yield page
        request = api.list_next(request, page)


def _memorystore(cloud: "GoogleCloud", timeout: float) -> Snapshot:
    from google.cloud import redis_v1

    request = redis_v1.ListInstancesRequest(parent=f"projects/{cloud.project}/locations/-", page_size=PAGE)
    found: list[CloudInstance] = []
    unreachable: set[str] = set()
    for page in cloud.redis.list_instances(request, timeout=timeout, retry=None).pages:
        unreachable |= set(page.unreachable)
        for one in page.instances:
            region, name = one.name.split("/")[3], _last(one.name).strip(" -")
            if not name:  # stands for a region that did not answer
                unreachable.add(region)
                continue
            found.append(CloudInstance(name, region, one.state.name, dict(one.labels), one))
    return Snapshot(Kind.MEMORYSTORE, cloud.project, tuple(found), tuple(sorted(map(_last, unreachable))))


def _last(path: str) -> str:
    """Of zones/europe-west1-b or projects/p/locations/europe-west1 the place alone."""
    return path.rsplit("/", 1)[-1]


LISTINGS: dict[Kind, Listing] = {
    Kind.COMPUTE_ENGINE: Listing(lambda cloud: cloud.instances, _compute),
    Kind.CLOUD_SQL: Listing(lambda cloud: cloud.sql, _cloud_sql),
    Kind.MEMORYSTORE: Listing(lambda cloud: cloud.redis, _memorystore),
}
