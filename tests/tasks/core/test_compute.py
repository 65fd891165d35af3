"""What a machine's answer means, and when it counts as unwell."""

from typing import Any

import pytest

from blocks.schema import Kind, Resource, Thresholds
from tasks.core.compute_inside import CpuTicks, NotUnderstood, cpu_percent, script, understood
from tasks.core.compute_judgement import judge
from tasks.core.models import Reading
from tests.machine_incidents import MACHINE_READINGS, OFF, RUNNING

VM = Resource(name="vm", kind=Kind.COMPUTE_ENGINE, address="shop-vm")
ANSWER = """cpu  1000 10 200 8000 90 5 5 10 0 0
cpu  1080 10 220 8090 90 5 5 10 0 0
@@boot
5f1c8f0e-1111-4222-8333-444455556666
btime 1790000000
@@memory
MemTotal:         262144 kB
MemAvailable:      26214 kB
@@disk
/dev/sda1          10000000 2500000  7500000      25% /
@@largest
204800   812 report export
 10240     1 systemd
"""


def test_the_answer_of_a_machine_is_understood() -> None:
    found = understood(ANSWER)
    assert found.booted_at == 1790000000
    assert found.values == {
        "memory_percent": 90.0,
        "memory_used_mib": 230,
        "memory_total_mib": 256,
        "disk_percent": 25.0,
        "largest": ["report export (812) 200 MiB", "systemd (1) 10 MiB"],
    }
    assert cpu_percent(*found.ticks) == pytest.approx(52.6)  # 100 of 190 ticks, waiting for the disk not among them


def test_counts_of_another_boot_or_of_no_time_say_nothing() -> None:
    first = CpuTicks("a", 100, 200)
    assert cpu_percent(first, CpuTicks("b", 150, 300)) is None
    assert cpu_percent(first, first) is None
    assert cpu_percent(first, CpuTicks("a", 201, 300)) == 100


@pytest.mark.parametrize(
    "answer", ["", "bash: grep: command not found\n", ANSWER.replace("MemTotal", "Mem"), ANSWER.replace("@@disk", "@@")]
)
def test_another_answer_is_told_apart(answer: str) -> None:
    with pytest.raises(NotUnderstood):
        understood(answer)


def test_the_script_samples_twice_only_where_it_is_asked_to() -> None:
    assert script(0).count("/proc/stat") == 2
    assert "sleep 1;" in script(1.0)


def symptoms(values: dict[str, Any], resource: Resource = VM) -> list[str]:
    return [finding.symptom for finding in judge(Reading(values=values), resource)]


@pytest.mark.parametrize("incident", MACHINE_READINGS)
def test_each_incident_has_its_symptom(incident: str) -> None:
    assert symptoms(MACHINE_READINGS[incident][1]) == [incident.partition(": ")[2]]


@pytest.mark.parametrize(
    "values",
    [
        RUNNING,
        OFF | {"stopped_by": "ann@example.com"},
        OFF | {"maintenance": "new disk", "stopped_by": None},
        RUNNING | {"state": "STAGING"},
        RUNNING | {"state": "SUSPENDED", "memory_percent": 99.0},
        RUNNING | {"memory_percent": 99.0, "maintenance": "yes"},
        RUNNING | {"memory_percent": 89.9, "cpu_percent": 100.0, "cpu_sustained_percent": None},
        RUNNING | {"source": "monitoring", "age_seconds": 700.0, "memory_percent": 99.0, "cpu_sustained_percent": 99.0},
        # The way in is broken, and Cloud Monitoring hears of it: the machine is well.
        RUNNING | {"inside": "closed", "source": "monitoring", "age_seconds": 200.0, "ssh_error": "refused"},
    ],
    ids=["well", "stopped by a person", "label", "starting", "suspended", "full in maintenance", "a moment", "old points", "only SSH"],
)
def test_what_is_meant_to_be_so_or_is_not_known_to_be_is_no_finding(values: dict[str, Any]) -> None:
    assert symptoms(values) == []


def test_the_threshold_of_the_memory_is_90_percent_unless_the_inventory_says_otherwise() -> None:
    assert symptoms(RUNNING | {"memory_percent": 91.0}) == ["memory_high"]
    lenient = VM.model_copy(update={"thresholds": Thresholds(memory_percent=95)})
    assert symptoms(RUNNING | {"memory_percent": 91.0}, lenient) == []


def test_a_figure_of_cloud_monitoring_is_told_with_its_age() -> None:
    values = RUNNING | {"source": "monitoring", "age_seconds": 210.0, "memory_percent": 97.0, "memory_used_mib": None}
    (finding,) = judge(Reading(values=values), VM)
    assert finding.summary == "97 % of the memory is in use (threshold 90 %), by Cloud Monitoring 210 s ago"
