"""What is made of an engine's words about a container: figures, history, facts. Nothing is running for it."""

from typing import Any

import pytest

from tasks.clients.container_facts import (
    aliases,
    compose_service,
    cpu_limit,
    created_in,
    epoch_seconds,
    memory_limit_mib,
    port_addresses,
)
from tasks.clients.container_history import History
from tasks.clients.container_samples import Sample, Samples, read_sample, usage
from tasks.clients.container_streams import ContainerEvent

MIB = 2**20


def told(memory: dict[str, int] | None = None, at: str = "2026-01-01T00:00:01.5Z") -> dict[str, Any]:
    return {
        "read": at,
        "cpu_stats": {"cpu_usage": {"total_usage": 2_000_000_000}, "throttling_data": {"periods": 10, "throttled_periods": 4}},
        "memory_stats": {"usage": 60 * MIB, "stats": memory} if memory else {},
        "pids_stats": {"current": 3},
    }


@pytest.mark.parametrize("memory", [{"total_inactive_file": 20 * MIB, "inactive_file": 1}, {"inactive_file": 20 * MIB}])
def test_memory_is_without_unused_files_on_both_versions_of_cgroups(memory: dict[str, int]) -> None:
    sample = read_sample(told(memory))
    assert sample == Sample(at=1767225601.5, cpu_seconds=2, periods=10, throttled_periods=4, memory_bytes=40 * MIB, processes=3)


def test_a_container_that_does_not_run_has_no_figures() -> None:
    assert read_sample(told()) is None
    assert read_sample(told({"inactive_file": 1}, "0001-01-01T00:00:00Z")) is None
    assert epoch_seconds("0001-01-01T00:00:00Z") is None


def sample(at: float, cpu: float, throttled: int = 0) -> Sample:
    return Sample(at, cpu, periods=round(10 * at), throttled_periods=throttled, memory_bytes=50 * MIB)


def test_shares_are_of_the_last_seconds_and_of_the_limits() -> None:
    samples = Samples()
    samples.add(sample(0, 0))
    assert usage(samples, 100, 0.5)["cpu_percent"] is None
    for second in range(1, 11):
        # Nothing at first, half of the limit in the end, held back in a fifth of the time.
        samples.add(sample(second, max(second - 5, 0) / 4, throttled=2 * max(second - 5, 0)))
    found = usage(samples, 100, 0.5)
    assert found == {
        "memory_mib": 50,
        "memory_limit_mib": 100,
        "memory_percent": 50,
        "cpus_used": 0.25,
        "cpus_limit": 0.5,
        "cpu_percent": 50,
        "throttled_percent": 20,
    }
    assert usage(samples, None, None)["cpu_percent"] is None
    samples.add(sample(11, 0.1))
    assert len(samples) == 1, "a restart counts anew"


def history(*words: str) -> History:
    """Such as 3:die=137: second, action, and exit code or signal."""
    events = []
    for word in words:
        at, _, rest = word.partition(":")
        action, _, value = rest.partition("=")
        events.append(ContainerEvent("shop", action, float(at), {"exitCode": value, "signal": value} if value else {}))
    return History(events)


def test_an_end_that_was_asked_for_is_no_crash() -> None:
    stopped = history("1:start", "2:kill=15", "12:kill=9", "12:die=137", "12:stop", "13:start", "14:kill=1", "15:die=1", "16:start")
    assert (stopped.exit_codes, stopped.restarts) == ([1], 1)
    assert history("1:start", "2:die=0", "3:start", "4:die=3").restarts == 1
    assert history("1:kill=15", "90:die=1").exit_codes == [1], "a signal that it outlived is not why it ended"


def test_kills_for_want_of_memory_count_until_the_limit_is_changed() -> None:
    assert history("1:oom", "2:oom").oom_kills == 2
    assert history("1:oom", "2:oom", "3:update").oom_kills == 0
    assert history("1:oom", "3:update", "4:oom").oom_kills == 1
    assert history("1:oom", "5000:oom").within_an_hour(5001).oom_kills == 1


@pytest.mark.parametrize(
    ("host", "cores", "memory", "network"),
    [
        ({"NanoCpus": 500_000_000, "Memory": 64 * MIB, "NetworkMode": "shop_default"}, 0.5, 64, "shop_default"),
        ({"CpuQuota": 25_000, "CpuPeriod": 50_000, "NetworkMode": "default"}, 0.5, None, "bridge"),
        ({"CpuQuota": -1, "NetworkMode": "host"}, None, None, None),
        ({"NetworkMode": "container:abc"}, None, None, None),
    ],
)
def test_limits_and_network_that_it_was_made_with(
    host: dict[str, Any], cores: float | None, memory: float | None, network: str | None
) -> None:
    made = {"HostConfig": host}
    assert (cpu_limit(made), memory_limit_mib(made), created_in(made)) == (cores, memory, network)


def test_ports_are_reached_as_published_else_at_the_containers_own_address() -> None:
    made = {
        "Config": {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}},
        "HostConfig": {"PortBindings": {"8000/tcp": [{}]}},
        "NetworkSettings": {
            "Networks": {"shop": {"IPAddress": "172.18.0.2"}},
            "Ports": {"8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "18000"}], "80/tcp": None},  # noqa: S104
        },
    }
    assert port_addresses(made) == [("172.18.0.2", 80), ("127.0.0.1", 18000)]
    assert aliases({"Id": "abcdef1234567890"}, ["abcdef123456", "app"]) == ["app"]


def test_what_compose_wrote_into_the_labels() -> None:
    assert compose_service({"com.docker.compose.project": "shop"}) is None
    found = compose_service(
        {
            "com.docker.compose.project": "shop",
            "com.docker.compose.service": "app",
            "com.docker.compose.project.working_dir": "/srv/shop",
            "com.docker.compose.project.config_files": "/srv/shop/a.yaml,/srv/shop/b.yaml",
        }
    )
    assert found is not None
    assert (found.files, found.environment_files) == (("/srv/shop/a.yaml", "/srv/shop/b.yaml"), ())
