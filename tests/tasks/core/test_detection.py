"""Incidents open when they should, once, and roots before dependents."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.schema import Inventory, Kind, Maintenance
from tasks.core.detection import Escalation, Track, advance, detect
from tasks.core.models import Forecast, Health, Observation

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Observe = Callable[..., Observation]


def names(detection_incidents: tuple[object, ...]) -> list[str]:
    return [incident.resource for incident in detection_incidents]  # type: ignore[attr-defined]


def test_a_first_breach_is_a_suspect_and_a_second_an_incident(inventory: Inventory, observe: Observe) -> None:
    first = detect(inventory, {}, [observe("cache", Health.DEGRADED)], busy=frozenset(), now=NOW)
    assert (first.suspects, first.incidents) == (("cache",), ())
    second = detect(inventory, first.tracks, [observe("cache", Health.FAILED, 1)], busy=frozenset(), now=NOW)
    assert names(second.incidents) == ["cache"]
    assert second.incidents[0].health is Health.FAILED


def test_a_breach_that_recovers_opens_nothing(inventory: Inventory, observe: Observe) -> None:
    tracks = detect(inventory, {}, [observe("cache", Health.DEGRADED)], busy=frozenset(), now=NOW).tracks
    tracks = detect(inventory, tracks, [observe("cache", Health.HEALTHY)], busy=frozenset(), now=NOW).tracks
    again = detect(inventory, tracks, [observe("cache", Health.DEGRADED)], busy=frozenset(), now=NOW)
    assert again.incidents == ()


def test_unknown_opens_nothing_however_long_it_lasts(inventory: Inventory, observe: Observe) -> None:
    tracks: dict[str, Track] = {}
    for second in range(10):
        found = detect(inventory, tracks, [observe("cache", Health.UNKNOWN, second)], busy=frozenset(), now=NOW)
        tracks = found.tracks
        assert (found.incidents, found.suspects) == ((), ())


def test_a_busy_resource_opens_no_second_incident(inventory: Inventory, observe: Observe) -> None:
    tracks = {"cache": Track(health=Health.FAILED, since=NOW, breaches=5)}
    found = detect(inventory, tracks, [observe("cache", Health.FAILED)], busy=frozenset({"cache"}), now=NOW)
    assert found.incidents == ()
    assert "under way" in found.held_back["cache"]


def test_what_was_left_to_a_person_calls_for_none_again_until_it_was_healthy(inventory: Inventory, observe: Observe) -> None:
    escalations = {"cache": Escalation(closed_at=NOW, symptoms=frozenset({"memory_high"}))}
    tracks: dict[str, Track] = {}
    for second in range(1, 5):
        found = detect(inventory, tracks, [observe("cache", Health.DEGRADED, second)], busy=frozenset(), now=NOW, escalations=escalations)
        tracks = found.tracks
        assert found.incidents == ()
        assert "left to a person" in found.held_back["cache"]
    tracks = detect(inventory, tracks, [observe("cache", Health.HEALTHY, 5)], busy=frozenset(), now=NOW, escalations=escalations).tracks
    for second in (6, 7):
        found = detect(inventory, tracks, [observe("cache", Health.DEGRADED, second)], busy=frozenset(), now=NOW, escalations=escalations)
        tracks = found.tracks
    assert names(found.incidents) == ["cache"]


def test_another_symptom_than_the_one_left_to_a_person_opens_an_incident(inventory: Inventory, observe: Observe) -> None:
    escalations = {"cache": Escalation(closed_at=NOW, symptoms=frozenset({"slow"}))}
    tracks = {"cache": Track(health=Health.DEGRADED, since=NOW, breaches=5)}
    found = detect(inventory, tracks, [observe("cache", Health.DEGRADED, 1)], busy=frozenset(), now=NOW, escalations=escalations)
    assert names(found.incidents) == ["cache"]


@pytest.mark.parametrize(("ends_in_seconds", "opens"), [(60, False), (-60, True)])
def test_maintenance_holds_incidents_back_until_it_ends(inventory: Inventory, observe: Observe, ends_in_seconds: int, opens: bool) -> None:
    window = Maintenance(until=NOW + timedelta(seconds=ends_in_seconds), reason="upgrade")
    resources = tuple(one.model_copy(update={"maintenance": window}) if one.name == "cache" else one for one in inventory.resources)
    maintained = inventory.model_copy(update={"resources": resources})
    tracks = {"cache": Track(health=Health.FAILED, since=NOW, breaches=5)}
    found = detect(maintained, tracks, [observe("cache", Health.FAILED)], busy=frozenset(), now=NOW)
    assert bool(found.incidents) is opens
    assert ("upgrade" in found.held_back.get("cache", "")) is not opens


def test_dependents_wait_for_their_root_cause(inventory: Inventory, observe: Observe) -> None:
    unwell = [observe(name, Health.FAILED) for name in ("web", "app", "cache")]
    tracks = detect(inventory, {}, unwell, busy=frozenset(), now=NOW).tracks
    found = detect(inventory, tracks, unwell, busy=frozenset(), now=NOW)
    assert names(found.incidents) == ["cache"]
    assert set(found.held_back) == {"app", "web"}
    healed = [observe("cache", Health.HEALTHY), observe("app", Health.FAILED), observe("web", Health.FAILED)]
    assert names(detect(inventory, found.tracks, healed, busy=frozenset(), now=NOW).incidents) == ["app"]


healths = st.lists(st.dictionaries(st.sampled_from(["cache", "app", "web"]), st.sampled_from(list(Health)), min_size=1), max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sweeps=healths, busy=st.frozensets(st.sampled_from(["cache", "app", "web"])), confirmations=st.integers(1, 4))
def test_whatever_is_observed_incidents_keep_their_rules(
    inventory: Inventory, observe: Observe, sweeps: list[dict[str, Health]], busy: frozenset[str], confirmations: int
) -> None:
    tracks: dict[str, Track] = {}
    for second, sweep in enumerate(sweeps):
        observations = [observe(name, health, second) for name, health in sweep.items()]
        found = detect(inventory, tracks, observations, busy=busy, now=NOW, confirmations=confirmations)
        tracks = found.tracks
        opened = set(names(found.incidents))
        breached = {name for name, health in sweep.items() if health.is_breach}
        assert opened <= breached
        assert not opened & busy
        assert all(tracks[name].breaches >= confirmations for name in opened)
        if "cache" in opened:
            assert not opened & {"app", "web"}
        # Every breach is accounted for in exactly one way.
        assert len(opened) + len(found.suspects) + len(found.held_back) == len(breached)


@given(steps=st.lists(st.sampled_from(list(Health)), min_size=1))
def test_a_track_counts_breaches_in_a_row(steps: list[Health]) -> None:
    track: Track | None = None
    expected = 0
    for second, health in enumerate(steps):
        moment = NOW + timedelta(seconds=second)
        track = advance(track, Observation(resource="cache", kind=Kind.REDIS, health=health, taken_at=moment))
        if health.is_breach:
            expected += 1
        elif health is Health.HEALTHY:
            expected = 0
        assert track.breaches == expected
        assert track.since <= moment


def predicted(observation: Observation) -> Observation:
    """The same breach, only predicted."""
    rising = Forecast(metric="memory_percent", per_second=0.1)
    findings = tuple(finding.model_copy(update={"forecast": rising}) for finding in observation.findings)
    return observation.model_copy(update={"findings": findings})


def test_what_is_only_predicted_opens_an_incident_and_holds_no_dependent_back(inventory: Inventory, observe: Observe) -> None:
    seen = [predicted(observe("cache", Health.DEGRADED)), observe("app", Health.FAILED)]
    tracks = detect(inventory, {}, seen, busy=frozenset(), now=NOW).tracks
    found = detect(inventory, tracks, seen, busy=frozenset(), now=NOW)
    assert names(found.incidents) == ["cache", "app"]
    assert found.held_back == {}


def test_a_prediction_left_to_a_person_is_no_reason_to_wait_when_it_has_come(inventory: Inventory, observe: Observe) -> None:
    escalations = {"cache": Escalation(closed_at=NOW, symptoms=frozenset({"memory_high"}), predicted=True)}
    tracks = {"cache": Track(health=Health.DEGRADED, since=NOW, breaches=5)}
    breach = observe("cache", Health.DEGRADED, 1)
    still = detect(inventory, tracks, [predicted(breach)], busy=frozenset(), now=NOW, escalations=escalations)
    assert "left to a person" in still.held_back["cache"]
    assert names(detect(inventory, tracks, [breach], busy=frozenset(), now=NOW, escalations=escalations).incidents) == ["cache"]
