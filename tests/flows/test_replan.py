"""A real incident, kept with what its plan was made from, and planned again by the flow that a person starts."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL

from compose.description import LabDescription
from compose.gemini_server import GeminiServer
from compose.gemini_wire import in_turn
from flows.remediate import remediate
from flows.replan import replan
from tasks.connecting import Live
from tasks.core.models import OutcomeStatus, Verdict
from tasks.records.archive import archive_of
from tests.flows.cache_fault import connect, empty, fill, maxmemory_mib
from tests.flows.full_cache import block
from tests.scripted_gemini import planned, secrets_of, step

pytestmark = pytest.mark.timeout(120)


async def artifact(key: str) -> dict[str, Any]:
    """The latest of that key, asked of Prefect's API over plain HTTP."""
    async with httpx.AsyncClient(base_url=str(PREFECT_API_URL.value())) as http:
        answer = await http.get(f"/artifacts/{key}/latest")
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


async def test_an_incident_is_kept_without_secrets_and_planned_again(opened: Live, lab: LabDescription, tmp_path: Path) -> None:
    since, password = datetime.now(UTC), lab.cache.logins["application"].password
    opened.inventory = opened.inventory.model_copy(update={"rules": opened.inventory.rules.model_copy(update={"settle_seconds": 0})})
    answer = planned(step(), diagnosis=f"its password is {password}")
    async with connect(lab) as redis, GeminiServer(in_turn(answer)) as server:
        opened.gemini = block(server.port)
        await redis.client_setname(password)
        await fill(lab, 96)
        try:
            state: State[Any] = await remediate("shop-cache", return_state=True)
        finally:
            await empty(lab)
    (saved,) = await opened.records.saved_incidents(inventory="lab", limit=1)
    assert (state.name, saved.fix.verdict, saved.fix.opened_at > since) == ("Completed", Verdict.COMPLETED, True)
    (asked,) = saved.planned
    assert asked.question.context.observation.findings[0].symptom == "memory_high"
    assert asked.question.rules == opened.inventory.rules
    assert asked.acted.plan.planner == "gemini:gemini-test"
    content = archive_of([saved]).model_dump_json(indent=1)
    assert not [secret for secret in secrets_of(lab) if secret in content or secret in saved.model_dump_json()]
    assert "its password is [masked]" in content
    file, report = tmp_path / "incident.json", tmp_path / "report.json"
    file.write_text(content, encoding="utf-8")
    limit = await maxmemory_mib(lab)

    ended: State[Any] = await replan(fixes=[saved.fix.id], rules={"autonomy": "approve"}, report_file=str(report), return_state=True)
    assert (ended.name, ended.message) == ("Completed", "0 of 1 plans are the same; nothing of it was executed")
    ((made,), shown) = json.loads(report.read_text())["plans"], await artifact("replan-lab")
    assert made["was"]["plan"]["steps"][0]["args"] == {"mebibytes": 100}
    assert made["would"]["plan"]["planner"] == "runbook:redis_memory"
    assert [ruling["action"] for ruling in (*made["was"]["rulings"], *made["now"], *made["would"]["rulings"])] == ["allow", "ask", "ask"]
    assert made["done"] == [f"redis_set_maxmemory: {OutcomeStatus.DONE}"]
    (row,) = json.loads(shown["data"])
    assert (row["fix"], row["ended"], row["agrees"]) == (saved.fix.id, "Completed", "≈ other arguments")
    assert "0 of 1 plans are the same" in shown["description"]

    again: State[Any] = await replan(file=str(file), planner="as recorded", return_state=True)
    assert again.message == "1 of 1 plans are the same; nothing of it was executed"
    assert await maxmemory_mib(lab) == limit
    assert len(await opened.records.history(inventory="lab", since=since, limit=5)) == 1
    missing: State[Any] = await replan(fixes=["no-such-fix"], return_state=True)
    assert (missing.type, "no fix 'no-such-fix' is on record" in str(missing.message)) == ("FAILED", True)
