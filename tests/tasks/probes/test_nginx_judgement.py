"""The judgement of Nginx readings, as a pure function."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.schema import Kind, Resource, Thresholds
from tasks.core.models import Finding, Health, Reading
from tasks.core.nginx_judgement import judge

HEALTHY: dict[str, Any] = {
    "answers": "yes",
    "page_ok": True,
    "page_status": 200,
    "page_from": None,
    "page_error": None,
    "page_seconds": 0.01,
    "connections_used": 10,
    "connections_max": 256,
    "connections_percent": 3.9,
    "busiest_worker_percent": 3.9,
    "worker_processes": 1,
    "draining_workers": 0,
    "stopped_workers": 0,
    "config_loaded": True,
    "config_error": None,
    "pages_failing": {},
    "wrong_modes": {},
    "undeclared_servers": {},
    "certificate_error": None,
}
PERCENT = st.floats(0, 100) | st.none()
ANY_VALUES = st.fixed_dictionaries(
    {},
    optional={
        "answers": st.sampled_from(["yes", "refused", "timeout"]) | st.none(),
        "page_ok": st.booleans() | st.none(),
        "page_status": st.integers(100, 599) | st.none(),
        "page_from": st.sampled_from(["nginx", "behind", None]),
        "page_error": st.sampled_from(["timeout", "broken off", "tls", None]),
        "page_seconds": st.floats(0, 10) | st.none(),
        "connections_percent": PERCENT,
        "busiest_worker_percent": PERCENT,
        "worker_processes": st.integers(0, 8) | st.none(),
        "stopped_workers": st.integers(0, 8) | st.none(),
        "certificate_error": st.sampled_from(["expired", "not yet valid", "not trusted", None]),
        "config_error": st.sampled_from(["unknown directive", None]),
        "pages_failing": st.dictionaries(st.sampled_from(["/a", "/b"]), st.sampled_from([403, 404, "nothing in time"])) | st.none(),
        "wrong_modes": st.just({"/srv": "0000"}) | st.none(),
    },
)
THRESHOLDS = st.builds(Thresholds, connections_percent=st.floats(1, 100), latency_seconds=st.floats(0.1, 10))
EXPECTED_HEALTH = {
    "down": Health.FAILED,
    "unresponsive": Health.FAILED,
    "page_failing": Health.FAILED,
    "page_forbidden": Health.FAILED,
    "upstream_failing": Health.FAILED,
    "upstream_unreachable": Health.FAILED,
    "upstream_timeout": Health.FAILED,
    "certificate_expired": Health.FAILED,
    "config_invalid": Health.DEGRADED,
    "connections_high": Health.DEGRADED,
    "slow": Health.DEGRADED,
}
PAGE = {symptom for symptom in EXPECTED_HEALTH if symptom.startswith(("page", "upstream", "certificate"))}


def judged(values: dict[str, Any], thresholds: Thresholds | None = None) -> dict[str, Finding]:
    resource = Resource(name="web", kind=Kind.NGINX, address="http://127.0.0.1:80/", thresholds=thresholds or Thresholds())
    found = judge(Reading(values=values), resource)
    by_symptom = {finding.symptom: finding for finding in found}
    assert len(by_symptom) == len(found), "a symptom is found once"
    return by_symptom


@given(ANY_VALUES, THRESHOLDS)
def test_every_reading_is_judged_and_each_symptom_has_its_one_health(values: dict[str, Any], thresholds: Thresholds) -> None:
    found = judged(values, thresholds)
    assert {symptom: finding.health for symptom, finding in found.items()} == {symptom: EXPECTED_HEALTH[symptom] for symptom in found}
    assert len(PAGE & set(found)) <= 1, "a page fails for one reason"
    if {"down", "unresponsive"} & set(found):
        assert len(found) == 1


@given(PERCENT, PERCENT, st.floats(1, 100))
def test_connections_are_high_exactly_from_the_threshold_on(percent: float | None, busiest: float | None, threshold: float) -> None:
    found = judged(
        {**HEALTHY, "connections_percent": percent, "busiest_worker_percent": busiest}, Thresholds(connections_percent=threshold)
    )
    expected = any(share is not None and share >= threshold for share in (percent, busiest))
    assert set(found) == ({"connections_high"} if expected else set())


@given(st.integers(400, 599), st.sampled_from(["nginx", "behind"]), st.floats(0, 100))
def test_a_failing_page_is_nginxs_or_what_is_behind_it(status: int, page_from: str, percent: float) -> None:
    found = judged({**HEALTHY, "page_ok": False, "page_status": status, "page_from": page_from, "connections_percent": percent})
    own = page_from == "nginx" or (status == 500 and percent >= 80)
    expected = {502: "upstream_unreachable", 504: "upstream_timeout"}.get(status)
    if expected is None:
        expected = ("page_forbidden" if status == 403 else "page_failing") if own else "upstream_failing"
    assert PAGE & set(found) == {expected}


def test_nothing_known_is_no_finding() -> None:
    assert judged({}) == {}
    assert judged(HEALTHY) == {}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"connections_used": 230, "connections_percent": 89.8}, "230 of 256 connections are in use, 90 % (threshold 80 %)"),
        (
            {"connections_used": 230, "connections_percent": 45.0, "busiest_worker_percent": 88.0},
            "one worker uses 88 % of its connections (threshold 80 %); 230 of 256 connections in all",
        ),
        ({"page_seconds": 2.4}, "the page took 2.40 s (threshold 2 s)"),
        (
            {"answers": "refused", "worker_processes": 2, "error": "all attempts failed"},
            "no connection is accepted at http://127.0.0.1:80/, though 2",
        ),
        (
            {"answers": "timeout", "stopped_workers": 1},
            "Nginx takes connections and answers none; 1 of its workers are stopped by a signal",
        ),
        ({"page_ok": False, "page_error": "timeout", "error": "no page within 2.5 s"}, "no page within 2.5 s, while Nginx itself answers"),
        ({"page_ok": False, "page_status": 504, "page_from": "nginx"}, "the page answers 504: what is behind Nginx does not answer in"),
        (
            {"page_ok": False, "page_status": 502, "page_from": "nginx", "undeclared_servers": {"shop": ["127.0.0.1:9"]}},
            "502: Nginx does not reach what is behind it; upstream shop has servers that are not declared: ['127.0.0.1:9']",
        ),
        (
            {"page_ok": False, "page_status": None, "page_error": "tls", "certificate_error": "expired"},
            "visitors refuse the certificate, which is expired",
        ),
        (
            {"pages_failing": {"/a": 404, "/b": 403}, "wrong_modes": {"/srv/b": "0000"}},
            "/b answers 403; /srv/b has mode 0000",
        ),
        ({"pages_failing": {"/a": "nothing in time"}}, "/a answers nothing in time"),
        ({"config_error": 'unknown directive "x" in /etc/nginx/nginx.conf:3'}, "can't be loaded, and the workers go on with what was"),
    ],
)
def test_summaries_give_the_figures(values: dict[str, Any], words: str) -> None:
    [finding] = judged({**HEALTHY, **values}).values()
    assert words in finding.summary
