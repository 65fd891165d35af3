"""What can be read of a real container: log, figures, how it was made."""

import pytest

from tasks.core.declare import NoArgs
from tasks.tools.containers_reading import ReadLogs, docker_inspect, docker_logs, docker_stats
from tests.tasks.engine import client_of, container, docker, inspected, until

pytestmark = pytest.mark.docker
WRITES = (
    "for n in 1 2 3; do echo \"2026-01-01 10:00:0$n WARNING order $n is late\"; done; echo 'ERROR no route to 10.0.0.9' >&2; "
    "echo 'INFO all is well'; echo \"KeyError: 'DATABASE_HOST'\"; exec sleep 3600"
)


async def test_a_container_is_read_and_left_as_it_is() -> None:
    options = ("--memory", "64m", "--cpus", "0.5", "--env", "SHOP_PASSWORD=hunter2hunter2", "--env", "SHOP_HOST=db", "--user", "1000")
    with container(*options, command=("sh", "-c", WRITES)) as name:
        await until(lambda: "KeyError" in docker("logs", name))
        before = inspected(name)
        async with client_of(name) as client:
            warnings = (await docker_logs(client, ReadLogs(level="warning"))).after
            assert warnings["counted"] == ["3x WARNING order <n> is late", "1x ERROR no route to <ip>"]
            assert warnings["lines_read"] == 6
            assert (await docker_logs(client, ReadLogs(level="error"))).after["counted"] == ["1x ERROR no route to <ip>"]
            assert (await docker_logs(client, ReadLogs(level="critical"))).after["counted"] == []
            last = (await docker_logs(client, ReadLogs(level="any", lines=2))).after["last_lines"]
            assert isinstance(last, list)
            assert "KeyError: 'DATABASE_HOST'" in last

            stats = (await docker_stats(client, NoArgs())).after
            assert (stats["state"], stats["memory_limit_mib"], stats["cpus_limit"]) == ("running", 64, 0.5)
            assert isinstance(stats["memory_percent"], float)
            assert 0 < stats["memory_percent"] < 50
            assert stats["processes"] == 2

            made = (await docker_inspect(client, NoArgs())).after
        assert made["environment"] == {"SHOP_PASSWORD": "[masked]", "SHOP_HOST": "db"} | path_of(before)
        assert (made["user"], made["memory_limit_mib"], made["created_in_network"]) == ("1000", 64, None)
        assert made["command"] == ["sh", "-c", WRITES]
        assert inspected(name) == before


def path_of(found: dict[str, dict[str, list[str]]]) -> dict[str, str]:
    return dict(variable.split("=", 1) for variable in found["Config"]["Env"] if variable.startswith("PATH="))
