"""What rules plan for a container, and where they leave it to a person. Nothing is running for it."""

from typing import Any

import pytest

from blocks.schema import Limits, Rules
from tasks.catalog import load_catalog
from tasks.core.models import Attempt, Context, Decision, Plan
from tasks.planners.runbooks import RunbookPlanner
from tests.container_incidents import CONTAINER_READINGS
from tests.incidents import context_of

PLANNER = RunbookPlanner(load_catalog(), Rules())


def with_limits(context: Context, limits: Limits) -> Context:
    return context.model_copy(update={"resource": context.resource.model_copy(update={"limits": limits})})


def tried(context: Context, plan: Plan) -> Context:
    return context.model_copy(update={"attempts": (*context.attempts, Attempt(plan=plan))})


def steps(plan: Plan) -> list["Call"]:
    return [(step.tool, {name: value for name, value in step.args.items() if value is not None}) for step in plan.steps]


Call = tuple[str, dict[str, Any]]
START: Call = ("docker_start", {})
UNPAUSE: Call = ("docker_unpause", {})
RESTART: Call = ("docker_restart", {})
HALF_MORE: Call = ("docker_update_limits", {"memory_mib": 96})
MOST: Call = ("docker_update_limits", {"memory_mib": 128})
EXPECTED: dict[str, list[list[Call]]] = {
    "box: container_down": [[START]],
    "box: paused": [[UNPAUSE]],
    "box: oom_killed": [[HALF_MORE], [MOST]],
    "box: oom_killed and down": [[HALF_MORE, START], [MOST, START]],
    "box: oom_killed again and again": [[HALF_MORE, RESTART], [MOST, RESTART]],
    "box: memory_high": [[HALF_MORE], [MOST]],
    "box: cpu_throttled": [[("docker_update_limits", {"cpus": 1})]],
    "box: cpu_high": [[("docker_update_limits", {"cpus": 1})]],
    "box: network_detached": [[("docker_connect_network", {"network": "shop_default"})]],
    "box: unhealthy while its port answers": [],
    "box: unhealthy and silent": [[RESTART]],
    "box: crash_looping": [],
    "box: port_conflict": [],
    "box: missing": [],
}
"""Incident -> the plans one after the other, as each is tried in vain; then a person is asked."""


@pytest.mark.parametrize("incident", CONTAINER_READINGS)
async def test_each_remedy_is_tried_once_the_mildest_first_and_then_a_person_is_asked(incident: str) -> None:
    context = context_of(incident)
    planned = []
    while (plan := await PLANNER.plan(context)).decision is Decision.ACT:
        planned.append(steps(plan))
        context = tried(context, plan)
    assert (planned, plan.decision) == (EXPECTED[incident], Decision.ESCALATE)


@pytest.mark.parametrize("incident", ["box: oom_killed", "box: memory_high", "box: cpu_throttled"])
@pytest.mark.parametrize("limits", [Limits(), Limits(memory_mib=64, cpus=0.5)], ids=["no limits", "limits reached"])
async def test_without_room_nothing_is_raised(incident: str, limits: Limits) -> None:
    assert (await PLANNER.plan(with_limits(context_of(incident), limits))).decision is Decision.ESCALATE


async def test_a_raise_is_enough_for_what_is_in_use_where_the_bound_allows_it() -> None:
    context = with_limits(context_of("box: memory_high"), Limits(memory_mib=512))
    values = context.observation.reading.values | {"memory_mib": 140.0, "memory_percent": 218.75}
    reading = context.observation.reading.model_copy(update={"values": values})
    context = context.model_copy(update={"observation": context.observation.model_copy(update={"reading": reading})})
    assert steps(await PLANNER.plan(context)) == [("docker_update_limits", {"memory_mib": 164})]
