"""Bring a lab's resources back to their baseline: loads ended, services running, configuration as declared."""

from typing import Any, Literal

import httpx
from prefect import flow, get_run_logger, task
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from blocks.schema import CLOUD_KINDS, Inventory, Kind, Resource
from tasks.clients.runtime import Runtime
from tasks.connecting import Live, current, live
from tasks.core.baseline import is_in_force
from tasks.core.errors import EvenkeelError, NotApplicable
from tasks.core.models import Step
from tasks.execution import call_tool
from tasks.probing import probe_resource
from tasks.scenarios.google_cloud import restore_project
from tasks.scenarios.stage import ShopLoads
from tasks.validation import wait_until_healthy

HEALTHY_SECONDS = 20.0


class NotALabError(EvenkeelError):
    """The inventory is not marked as a lab: faults and resets are refused."""


def require_lab(inventory: Inventory) -> str | None:
    """The shop's URL, None where the lab has none; NotALabError where the inventory is no lab."""
    if not inventory.lab:
        raise NotALabError(f"inventory {inventory.name!r}: faults are injected only where `lab: true` is set")
    return None if inventory.shop is None else inventory.shop.url


@flow(name="reset", flow_run_name="Reset {inventory} {resource}", persist_result=False)
async def reset(inventory: str = "lab", resource: str = "", autonomy: Literal["auto", "propose"] = "auto") -> State[Any] | None:
    """Bring a lab back to its baseline.

    Args:
        inventory: Name of an inventory marked `lab: true`.
        resource: Name of one resource; empty for all of them.
        autonomy: `propose` is a dry run: it shows what would be done and what of it would change anything, and does nothing.
    """
    async with live(inventory) as opened:
        require_lab(opened.inventory)
        chosen = [opened.inventory.resource(resource)] if resource else list(opened.inventory.resources)
        if autonomy == "propose":
            return await _proposed(opened, chosen)
        await end_loads(opened)
        await _restore_project(opened, chosen)
        for target in chosen:
            await _start_where_stopped(opened, target)
        for target in chosen:
            await to_baseline(opened, target)
    return None


async def _proposed(opened: Live, chosen: list[Resource]) -> State[Any]:
    """What a reset would do, as a table in the UI and in the final state."""
    rows = [{"resource": "the shop", "would": "end every load", "changes something": "where one runs"}]
    if any(one.kind in CLOUD_KINDS for one in chosen):
        rows.append(
            {"resource": "the simulated project", "would": "restore it", "changes something": "not to be told from what is measured"}
        )
    for target in chosen:
        service, observation = _service_of(opened, target), await probe_resource(opened, target)
        if service is not None and (await service.status()).state != "running":
            rows.append({"resource": target.name, "would": "start it", "changes something": "yes"})
        for call in target.baseline:
            in_force = is_in_force(opened.catalog.tools[call.tool], call.args, observation)
            answer = {True: "no", False: "yes", None: "not to be told from what is measured"}[in_force]
            rows.append({"resource": target.name, "would": f"{call.tool} {call.args}", "changes something": answer})
    for row in rows:
        get_run_logger().info("would %s on %s; changes something: %s", row["would"], row["resource"], row["changes something"])
    await acreate_table_artifact(rows, key=f"reset-{opened.inventory.name}", description="## What a reset would do")
    certain = [f"{row['would']} on {row['resource']}" for row in rows if row["changes something"] == "yes"]
    return Completed(name="Proposed", message=f"nothing was done; what would change something: {', '.join(certain) or 'nothing'}")


async def end_loads(opened: Live) -> None:
    """Stop every load of the shop, where there is one."""
    url = require_lab(opened.inventory)
    if url is None:
        return
    async with httpx.AsyncClient(base_url=url, trust_env=False) as shop:
        await ShopLoads(shop).stop_all()


async def to_baseline(opened: Live, target: Resource) -> None:
    """Wait until the resource is healthy, then apply the inventory's baseline calls; what is there already is left alone."""
    await wait_until_healthy(target, HEALTHY_SECONDS)
    for call in target.baseline:
        await apply_baseline(Step(tool=call.tool, target=target.name, args=call.args, why="baseline of the lab"))


@task(name="baseline", task_run_name="baseline: {step.tool} on {step.target}", cache_policy=NO_CACHE, persist_result=False)
async def apply_baseline(step: Step) -> None:
    """One call of the baseline; NotApplicable means that the resource is there already."""
    try:
        change = await call_tool(current(), step)
    except NotApplicable as reason:
        get_run_logger().info("left alone: %s", reason)
    else:
        get_run_logger().info("before %s, after %s", change.before, change.after)


async def _restore_project(opened: Live, chosen: list[Resource]) -> None:
    """Have the simulated project of a cloud lab as its world describes it: that takes back what no tool does, such as a database's tier."""
    if all(one.kind not in CLOUD_KINDS for one in chosen):
        return
    for one in opened.inventory.resources:
        if one.kind is Kind.COMPUTE_ENGINE and "admin" in one.logins:
            login = opened.logins[one.name, "admin"]
            await restore_project(login.username, login.password.get_secret_value())
            get_run_logger().info("the simulated project is as its world describes it")
            return


def _service_of(opened: Live, target: Resource) -> Runtime | None:
    """How the resource's process is started; None where the inventory does not say."""
    found: Runtime | None = getattr(opened.tool_client(target), "runtime", None)
    return found


async def _start_where_stopped(opened: Live, target: Resource) -> None:
    service = _service_of(opened, target)
    if service is not None and (await service.status()).state != "running":
        await service.start()
        get_run_logger().info("%s: started", target.name)
