"""Alerts become resources to look at, or an error that names the field; a bucket lets in what its rate allows."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.runtimes import ContainerRuntime
from blocks.schema import Inventory, Kind, Resource
from tasks.core.admission import TokenBucket
from tasks.core.alerts import NotUnderstood, cause_of, read_notification, resources_of

SHOP = Inventory(
    name="unit",
    resources=(
        Resource(name="cache", kind=Kind.REDIS, address="10.0.0.1:6379", runtime=ContainerRuntime(container="shop-cache-1")),
        Resource(name="db", kind=Kind.POSTGRES, address="db.example:5432/shop", logins={"monitor": "evenkeel"}),
        Resource(name="app", kind=Kind.HTTP, address="http://10.0.0.2:8000/healthz"),
        Resource(name="web", kind=Kind.NGINX, address="https://Shop.example/"),
        Resource(name="box", kind=Kind.CONTAINER, address="shop-api-1"),
    ),
)
ALERT = {"status": "firing", "labels": {"alertname": "CacheFull", "instance": "10.0.0.1:6379"}, "startsAt": "2026-01-01T00:00:00Z"}
POSTED: dict[str, Any] = {"version": "4", "groupKey": "{}", "status": "firing", "receiver": "evenkeel", "alerts": [ALERT]}


@pytest.mark.parametrize(
    ("labels", "resources"),
    [
        ({"evenkeel_resource": "db"}, ("db",)),
        ({"evenkeel_resource": "nobody", "instance": "10.0.0.1:6379"}, ()),
        ({"instance": "10.0.0.1:6379"}, ("cache",)),
        ({"instance": "redis://10.0.0.1:6379"}, ("cache",)),
        ({"address": "DB.example:5432"}, ("db",)),
        ({"instance": "http://10.0.0.2:8000/metrics"}, ("app",)),
        ({"instance": "https://shop.example/page"}, ("web",)),
        ({"instance": "shop.example:443"}, ("web",)),
        ({"container": "shop-cache-1"}, ("cache",)),
        ({"name": "shop-api-1"}, ("box",)),
        ({"instance": "10.0.0.1:9121", "alertname": "CacheFull"}, ()),
        ({"instance": "http://[::1"}, ()),
        ({"instance": "http://host:99999999/"}, ()),
        ({"instance": "", "name": ""}, ()),
        ({}, ()),
    ],
)
def test_labels_tell_which_resources_are_meant(labels: dict[str, str], resources: tuple[str, ...]) -> None:
    assert resources_of(labels, SHOP) == resources


@given(labels=st.dictionaries(st.sampled_from(["instance", "address", "name", "container", "evenkeel_resource"]), st.text()))
def test_no_label_is_too_odd(labels: dict[str, str]) -> None:
    assert set(resources_of(labels, SHOP)) <= {one.name for one in SHOP.resources}


def test_a_notification_is_read_and_what_else_it_holds_ignored() -> None:
    (alert,) = read_notification(json.dumps(POSTED).encode()).alerts
    assert alert.status == "firing"
    assert cause_of(alert.labels) == "alert CacheFull"
    assert cause_of({"alertname": "a\nb\x1b[31m" + "c" * 500}) == f"alert a b [31m{'c' * 72}"
    assert cause_of({}) == "alert without a name"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "3"}, "version: "),
        ({"version": None}, "version: "),
        ({"alerts": [ALERT, ALERT | {"status": "maybe"}]}, "alerts.1.status: "),
        ({"alerts": [{"status": "firing"}]}, "alerts.0.labels: is missing"),
        ({"alerts": [ALERT | {"labels": {"alertname": 5}}]}, "alerts.0.labels.alertname: "),
        ({"alerts": [ALERT] * 1001}, "alerts: "),
        ({"alerts": {}}, "alerts: "),
    ],
)
def test_what_does_not_fit_is_named_by_its_field(change: dict[str, Any], said: str) -> None:
    with pytest.raises(NotUnderstood, match="version 4") as caught:
        read_notification(json.dumps(POSTED | change).encode())
    assert str(caught.value).startswith(said)


@given(st.one_of(st.binary(max_size=200), st.recursive(st.none() | st.text(), st.lists).map(lambda value: json.dumps(value).encode())))
def test_any_other_body_is_refused(body: bytes) -> None:
    with pytest.raises(NotUnderstood):
        read_notification(body)


def test_a_body_nested_beyond_measure_is_refused() -> None:
    with pytest.raises(NotUnderstood, match="body"):
        read_notification(b"[" * 100_000)


@given(
    capacity=st.integers(1, 20),
    per_second=st.floats(0.01, 100),
    gaps=st.lists(st.floats(-5, 20), max_size=60),
)
def test_a_bucket_never_lets_in_more_than_its_rate(capacity: int, per_second: float, gaps: list[float]) -> None:
    bucket = TokenBucket(capacity, per_second)
    now, earned, taken = 0.0, float(capacity), 0
    for gap in gaps:
        now += gap
        earned += max(gap, 0) * per_second
        wait = bucket.take(now)
        assert wait >= 0
        taken += wait == 0
        assert taken <= earned + 1e-6
        if wait:
            now += wait * 1.001
            earned += wait * 1.001 * per_second
            assert bucket.take(now) == 0
            taken += 1


@pytest.mark.parametrize(("capacity", "per_second"), [(0, 1), (1, 0), (1, -1)])
def test_a_bucket_that_lets_nothing_in_is_a_mistake(capacity: float, per_second: float) -> None:
    with pytest.raises(ValueError, match="capacity"):
        TokenBucket(capacity, per_second)
