"""The validator finds what a document doesn't know: a right exchange is changed in one place, and the change is found."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

import compose.google_cloud.rest  # noqa: F401 - importing declares what is served
from compose.google_cloud.discovery import Method, Router
from compose.google_cloud.schema import Checker
from compose.google_cloud.serving import SERVED

Body = dict[str, Any]
HOSTS = {"compute": "compute.googleapis.com", "sql": "sqladmin.googleapis.com", "redis": "redis.googleapis.com"}
MACHINE: Body = {
    "kind": "compute#instance",
    "id": "4000000000123",
    "name": "web-1",
    "status": "RUNNING",
    "creationTimestamp": "2026-11-01T10:00:00.000Z",
    "labels": {"app": "shop"},
    "labelFingerprint": "42WmSpB8rSM=",
    "deletionProtection": False,
    "networkInterfaces": [{"name": "nic0", "networkIP": "10.0.0.1"}],
    "disks": [{"index": 0, "boot": True, "diskSizeGb": "10"}],
}
SETTINGS: Body = {"settings": {"tier": "db-g1-small", "dataDiskSizeGb": "20", "activationPolicy": "ALWAYS", "userLabels": {"a": "b"}}}
CACHE: Body = {"name": "projects/p/locations/l/instances/i", "memorySizeGb": 2, "labels": {"a": "b"}}
LRO: Body = {
    "name": "projects/p/locations/l/operations/o",
    "done": True,
    "metadata": {
        "@type": "type.googleapis.com/google.cloud.redis.v1.OperationMetadata",
        "createTime": "2026-11-01T10:00:00Z",
        "verb": "update",
    },
    "response": {"@type": "type.googleapis.com/google.cloud.redis.v1.Instance", "state": "READY", "memorySizeGb": 2},
}


@pytest.fixture(scope="module")
def method() -> Callable[[str], Method]:
    """By its id."""
    router = Router(frozenset(SERVED))
    every = {one.id: one for host in HOSTS.values() for one in router.methods(host)}
    return every.__getitem__


ANSWERS: list[tuple[str, Body, Callable[[Body], object], str]] = [
    ("unknown field", MACHINE, lambda body: body.update(statuss="RUNNING"), "body.statuss: there is no such field"),
    ("unknown field further in", MACHINE, lambda body: body["disks"][0].update(size=1), "body.disks[0].size: there is no such field"),
    ("no such value", MACHINE, lambda body: body.update(status="STARTED"), "body.status: 'STARTED' is none of its values"),
    ("text for a boolean", MACHINE, lambda body: body.update(deletionProtection="false"), "body.deletionProtection: str, not a boolean"),
    ("a number for a large one", MACHINE, lambda body: body.update(id=4000000000123), "body.id: int, not a string"),
    ("no number", MACHINE, lambda body: body.update(id="12x"), "body.id: '12x' is no uint64"),
    ("below zero", MACHINE, lambda body: body.update(id="-1"), "body.id: '-1' is no uint64"),
    ("text for a number", MACHINE, lambda body: body["disks"][0].update(index="0"), "body.disks[0].index: str, not an integer"),
    ("too large a number", MACHINE, lambda body: body["disks"][0].update(index=2**31), "body.disks[0].index: 2147483648 is no int32"),
    ("an object for a list", MACHINE, lambda body: body.update(disks={}), "body.disks: dict, not an array"),
    ("a list for an object", MACHINE, lambda body: body.update(labels=[]), "body.labels: list, not an object"),
    ("a label that is no text", MACHINE, lambda body: body["labels"].update(app=1), "body.labels.app: int, not a string"),
    ("null", MACHINE, lambda body: body.update(name=None), "body.name: null, not a string"),
    ("no base64", MACHINE, lambda body: body.update(labelFingerprint="42W?"), "body.labelFingerprint: '42W?' is no byte"),
    ("a name against the pattern", MACHINE, lambda body: body.update(name="Web_1"), "body.name: 'Web_1' does not match"),
    ("within an operation", LRO, lambda body: body["response"].update(state="FINE"), "body.response.state: 'FINE' is none of its values"),
    ("no time", LRO, lambda body: body["metadata"].update(createTime="now"), "body.metadata.createTime: 'now' is no google-datetime"),
]
REQUESTS: list[tuple[str, str, Body, Callable[[Body], object], str]] = [
    (
        "unknown field",
        "sql.instances.patch",
        SETTINGS,
        lambda body: body["settings"].update(tierr="x"),
        "body.settings.tierr: there is no such",
    ),
    ("snake case", "sql.instances.patch", SETTINGS, lambda body: body["settings"].update(data_disk_size_gb="20"), "there is no such field"),
    (
        "a number",
        "sql.instances.patch",
        SETTINGS,
        lambda body: body["settings"].update(dataDiskSizeGb=20),
        "dataDiskSizeGb: int, not a string",
    ),
    ("a field of answers", "redis.projects.locations.instances.patch", CACHE, lambda body: body.update(state="READY"), "only answers hold"),
    (
        "a size as text",
        "redis.projects.locations.instances.patch",
        CACHE,
        lambda body: body.update(memorySizeGb="2"),
        "str, not an integer",
    ),
    ("a body where none is taken", "compute.instances.stop", {}, lambda body: body.update(force=True), "body: this method takes none"),
]


@pytest.mark.parametrize(("body", "change", "problem"), [one[1:] for one in ANSWERS], ids=[one[0] for one in ANSWERS])
def test_a_wrong_answer_is_found(method: Callable[[str], Method], body: Body, change: Callable[[Body], object], problem: str) -> None:
    asked = "redis.projects.locations.operations.get" if body is LRO else "compute.instances.get"
    checker, wrong = Checker(method(asked), sending=False), copy.deepcopy(body)
    assert checker.body(checker.method.response, wrong) == []
    change(wrong)
    (found,) = checker.body(checker.method.response, wrong)
    assert problem in found


@pytest.mark.parametrize(("asked", "body", "change", "problem"), [one[1:] for one in REQUESTS], ids=[one[0] for one in REQUESTS])
def test_a_wrong_request_is_found(
    method: Callable[[str], Method], asked: str, body: Body, change: Callable[[Body], object], problem: str
) -> None:
    checker, wrong = Checker(method(asked), sending=True), copy.deepcopy(body)
    assert checker.body(checker.method.request, wrong or None) == []
    change(wrong)
    (found,) = checker.body(checker.method.request, wrong)
    assert problem in found


def test_a_missing_body_and_a_missing_field_are_found(method: Callable[[str], Method]) -> None:
    patch = Checker(method("sql.instances.patch"), sending=True)
    assert patch.body(patch.method.request, None) == ["body: missing"]
    insert = Checker(method("compute.instances.insert"), sending=True)
    assert "body.name: missing" in insert.body(insert.method.request, {})


PATH = {"project": "p", "zone": "z", "instance": "i"}
PARAMETERS: list[tuple[dict[str, str], dict[str, list[str]], str]] = [
    (PATH, {"request_id": ["x"]}, "parameter request_id: the method has none such"),
    (PATH, {"requestId": ["x", "y"]}, "parameter requestId: given 2 times"),
    (PATH, {"discardLocalSsd": ["yes"]}, "parameter discardLocalSsd: str, not a boolean"),
    (PATH, {"alt": ["xml"]}, "parameter alt: 'xml' is none of its values"),
    ({"project": "p", "zone": "z"}, {}, "parameter instance: missing"),
    ({**PATH, "instance": "No_Name"}, {}, "parameter instance: 'No_Name' does not match"),
]


@pytest.mark.parametrize(("path", "query", "problem"), PARAMETERS)
def test_a_wrong_parameter_is_found(
    method: Callable[[str], Method], path: dict[str, str], query: dict[str, list[str]], problem: str
) -> None:
    checker = Checker(method("compute.instances.stop"), sending=True)
    assert checker.parameters(PATH, {"requestId": ["x"], "alt": ["json"], "$alt": ["json;enum-encoding=int"]}) == []
    (found,) = checker.parameters(path, query)
    assert problem in found


def test_numbers_for_enumerations_are_taken_where_they_were_asked_for(method: Callable[[str], Method]) -> None:
    failover = method("redis.projects.locations.instances.failover")
    for numeric, problems in ((True, 0), (False, 1)):
        found = Checker(failover, sending=True, numeric_enums=numeric).body(failover.request, {"dataProtectionMode": 1})
        assert len(found) == problems


def test_every_served_method_is_one_of_the_documents(method: Callable[[str], Method]) -> None:
    for served in SERVED:
        if served.split(".")[0] in HOSTS:
            assert method(served).id == served
