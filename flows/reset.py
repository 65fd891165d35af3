"""Bring a lab's resources back to their baseline: loads ended, services running, configuration as declared."""

import httpx
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from blocks.schema import Inventory, Resource
from tasks.connecting import Live, current, live
from tasks.core.errors import EvenkeelError, NotApplicable
from tasks.core.models import Step
from tasks.execution import call_tool
from tasks.scenarios.stage import ShopLoads
from tasks.validation import wait_until_healthy

HEALTHY_SECONDS = 20.0


class NotALabError(EvenkeelError):
    """The inventory is not marked as a lab: faults and resets are refused."""


def require_lab(inventory: Inventory) -> str:
    """The shop's URL; NotALabError where the inventory is no lab."""
    if not inventory.lab or inventory.shop is None:
        raise NotALabError(f"inventory {inventory.name!r}: faults are injected only where `lab: true` and `shop:` are set")
    return inventory.shop.url


@flow(name="reset", flow_run_name="Reset {inventory} {resource}", persist_result=False)
async def reset(inventory: str = "lab", resource: str = "") -> None:
    """Bring a lab back to its baseline.

    Args:
        inventory: Name of an inventory marked `lab: true`.
        resource: Name of one resource; empty for all of them.
    """
    async with live(inventory) as opened:
        require_lab(opened.inventory)
        chosen = [opened.inventory.resource(resource)] if resource else list(opened.inventory.resources)
        await end_loads(opened)
        for target in chosen:
            await _start_where_stopped(opened, target)
        for target in chosen:
            await to_baseline(opened, target)


async def end_loads(opened: Live) -> None:
    """Stop every load of the shop."""
    url = require_lab(opened.inventory)
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


async def _start_where_stopped(opened: Live, target: Resource) -> None:
    service = getattr(opened.tool_client(target), "runtime", None)
    if service is not None and (await service.status()).state != "running":
        await service.start()
        get_run_logger().info("%s: started", target.name)
