"""What the records amount to, on each database, and as Prometheus reads it."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tasks.core.models import FixRecord, Health, Outcome, OutcomeStatus, Step, Usage, Verdict
from tasks.metrics import CannotServe, exposition, serving
from tasks.records.figures import BUCKET_SECONDS
from tasks.records.repository import Records
from tasks.records.rows import Status
from tests.tasks.records.conftest import T0

MakeRecord = Callable[..., FixRecord]
STEP = Step(tool="redis_set_maxmemory", target="shop-cache", args={"mebibytes": 96}, why="it is full")
DAY = date(2026, 3, 1)


async def fill(records: Records, make_record: MakeRecord) -> None:
    """Two healed fixes, an escalated one, one that waits for a person and one under way."""
    for name, seconds, verdict in (("a", 1.5, Verdict.COMPLETED), ("b", 40.0, Verdict.COMPLETED), ("c", None, Verdict.ESCALATED)):
        fix = make_record(name).model_copy(update={"timings": {} if seconds is None else {"healthy": seconds, "detected": 0.1}})
        assert await records.open_fix(fix, "me", T0)
        assert await records.begin_step(name, "me", 1, STEP, T0)
        if name != "c":
            assert await records.end_step(name, 1, Outcome(step=STEP, status=OutcomeStatus.DONE, started_at=T0))
        assert await records.close_fix(fix, "me", verdict, "", T0)
    for name, resource in (("d", "shop-db"), ("e", "shop-web")):
        assert await records.open_fix(make_record(name, resource=resource), "me", T0)
    assert await records.wait_for_person(make_record("d", resource="shop-db"), "me", T0)
    seen = [
        Status(resource="shop-cache", health=Health.DEGRADED, headline=96.5, taken_at=T0),
        Status(resource='odd "name"\n', health=Health.HEALTHY, taken_at=T0),
    ]
    await records.save_statuses("lab", seen)
    await records.take_over_monitor("lab", "run", T0)
    await records.monitor_swept("lab", "run", T0 + timedelta(seconds=5))
    await records.take_over_monitor("lab/events", "run", T0)
    for day in (DAY, DAY + timedelta(days=1)):
        await records.add_use("gemini/lab", day, Usage(requests=2, input_tokens=100, output_tokens=10, dollars=0.25, seconds=3))
    for _ in range(3):
        await records.planner_failed("gemini/lab", T0)


Sample = tuple[str, tuple[tuple[str, str], ...]]


def samples(text: str) -> dict[Sample, float]:
    """Every sample by its name and labels, as Prometheus's own parser reads it."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}


def sample(name: str, **labels: str) -> Sample:
    return name, tuple(sorted(labels.items()))


async def test_every_figure_is_counted_from_the_rows(records: Records, make_record: MakeRecord) -> None:
    await fill(records, make_record)
    found = samples(exposition(await records.figures(), T0).decode())
    cache = {"inventory": "lab", "resource": "shop-cache"}
    expected = {
        sample("evenkeel_resource_health", **cache, health="DEGRADED"): 1,
        sample("evenkeel_resource_health", **cache, health="HEALTHY"): 0,
        sample("evenkeel_resource_health", inventory="lab", resource='odd "name"\n', health="HEALTHY"): 1,
        sample("evenkeel_resource_headline", **cache): 96.5,
        sample("evenkeel_resource_health_since_seconds", **cache): T0.timestamp(),
        sample("evenkeel_last_sweep_seconds", monitor="lab"): T0.timestamp() + 5,
        sample("evenkeel_last_sweep_seconds", monitor="lab/events"): 0,
        sample("evenkeel_fixes", **cache, verdict="Completed"): 2,
        sample("evenkeel_fixes", **cache, verdict="Escalated"): 1,
        sample("evenkeel_fixes", inventory="lab", resource="shop-web", verdict="open"): 1,
        sample("evenkeel_fixes_waiting_for_a_person", inventory="lab"): 1,
        sample("evenkeel_healing_seconds_bucket", inventory="lab", le="1"): 0,
        sample("evenkeel_healing_seconds_bucket", inventory="lab", le="2"): 1,
        sample("evenkeel_healing_seconds_bucket", inventory="lab", le="30"): 1,
        sample("evenkeel_healing_seconds_bucket", inventory="lab", le="60"): 2,
        sample("evenkeel_healing_seconds_bucket", inventory="lab", le="+Inf"): 2,
        sample("evenkeel_healing_seconds_count", inventory="lab"): 2,
        sample("evenkeel_healing_seconds_sum", inventory="lab"): 41.5,
        sample("evenkeel_steps", tool="redis_set_maxmemory", status="done"): 2,
        sample("evenkeel_steps", tool="redis_set_maxmemory", status="interrupted"): 1,
        sample("evenkeel_planner_requests_total", planner="gemini/lab"): 4,
        sample("evenkeel_planner_tokens_total", planner="gemini/lab", direction="input"): 200,
        sample("evenkeel_planner_tokens_total", planner="gemini/lab", direction="output"): 20,
        sample("evenkeel_planner_dollars_total", planner="gemini/lab"): 0.5,
        sample("evenkeel_planner_seconds_total", planner="gemini/lab"): 6,
        sample("evenkeel_planner_failures", planner="gemini/lab"): 3,
        sample("evenkeel_planner_paused", planner="gemini/lab"): 1,
    }
    assert {name: found.get(name) for name in expected} == expected
    later = samples(exposition(await records.figures(), T0 + timedelta(hours=1)).decode())
    assert later[sample("evenkeel_planner_paused", planner="gemini/lab")] == 0
    assert len([1 for name, _ in found if name == "evenkeel_healing_seconds_bucket"]) == len(BUCKET_SECONDS) + 1


async def test_empty_records_have_figures_too(records: Records) -> None:
    assert samples(exposition(await records.figures(), T0).decode()) == {}


async def test_they_are_served_to_whoever_has_the_token(tmp_path: Path, make_record: MakeRecord) -> None:
    async with await Records.open(f"sqlite:///{tmp_path}/records.db") as records, httpx.AsyncClient(trust_env=False) as http:
        await fill(records, make_record)
        async with serving(records, "127.0.0.1:0") as url:
            answer = await http.get(url)
            assert answer.headers["content-type"].startswith("text/plain; version=")
            assert samples(answer.text)[sample("evenkeel_last_sweep_seconds", monitor="lab")] == T0.timestamp() + 5
            taken = url.removeprefix("http://").removesuffix("/metrics")
            with pytest.raises(CannotServe, match="Address already in use"):
                async with serving(records, taken):
                    pass
        async with serving(records, "127.0.0.1:0", token="s3cret") as url:
            answers = [
                await http.get(url, headers=given) for given in ({}, {"authorization": "Bearer no"}, {"authorization": "Bearer s3cret"})
            ]
            assert [answer.status_code for answer in answers] == [401, 401, 200]
        with pytest.raises(CannotServe, match="reached from other machines; give --token-file"):
            async with serving(records, "0.0.0.0:0"):
                pass
        async with serving(records, "127.0.0.1:0") as url:
            async with records._database.begin() as connection:
                await connection.exec_driver_sql("DROP TABLE evenkeel_monitors")
            answer = await http.get(url)
            assert (answer.status_code, answer.text) == (503, "the records can't be read; the log says why\n")


async def test_the_command_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/records.db"
    async with await Records.open(url) as records:
        await records.take_over_monitor("lab", "run", T0)
    command = [sys.executable, "-m", "tasks.metrics", "--url", url, "--listen", "127.0.0.1:0"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30), httpx.AsyncClient(trust_env=False) as http:
            address = (await process.stdout.readline()).decode().split()[-1]
            assert sample("evenkeel_last_sweep_seconds", monitor="lab") in samples((await http.get(address)).text)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
