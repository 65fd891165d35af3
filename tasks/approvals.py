"""Asking a person: the run that waits for the answer, and the form that it shows."""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from prefect import get_client
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound
from prefect.input import RunInput
from prefect.settings import PREFECT_UI_URL
from pydantic import BaseModel, ConfigDict, Field, create_model

from tasks.catalog import Catalog
from tasks.connecting import Live
from tasks.core.errors import EvenkeelError
from tasks.core.models import FixRecord, Plan, Step
from tasks.execution import OwnershipLostError

DEPLOYMENT = "approve/by-hand"
DEPLOYMENT_OF_POOL = "approve/{pool}"
"""What was approved is done by the run that asked: it has to be where the resource can be reached."""
POOL_FILE = "docs/pool.yaml"
Answer = Literal["approve", "reject"]


class ApprovalUnavailableError(EvenkeelError):
    """Nobody can be asked, because the deployment that asks is missing."""


async def ask_a_person(live: Live, record: FixRecord, owner: str, reason: str) -> tuple[str, FixRecord]:
    """Leave the claim waiting for an answer, and start the run that waits for it.

    Answers what to say of it and the record. ApprovalUnavailableError where the deployment is missing: nothing has changed then.
    """
    inventory, pool = live.inventory.name, live.inventory.resource(record.incident.resource).pool
    deployment = DEPLOYMENT_OF_POOL.format(pool=pool) if pool else DEPLOYMENT
    async with get_client() as client:
        try:
            await client.read_deployment_by_name(deployment)
        except ObjectNotFound:
            deploy = "EVENKEEL_POOL=evenkeel prefect --no-prompt deploy --all"
            if pool:
                deploy = f"EVENKEEL_INVENTORY={inventory} EVENKEEL_POOL={pool} prefect --no-prompt deploy --prefect-file {POOL_FILE} --all"
            raise ApprovalUnavailableError(f"nobody could be asked: no deployment {deployment}; run: {deploy}") from None
    until = datetime.now(UTC) + timedelta(seconds=live.inventory.rules.approval_seconds)
    # The record waits before the run exists: what is killed in between expires, and is escalated by a sweep.
    if not await live.records.wait_for_person(record, owner, until):
        raise OwnershipLostError(f"{record.id}: taken over by another process")
    run = await arun_deployment(
        deployment,
        parameters={"fix": record.id, "inventory": inventory},
        timeout=0,
        as_subflow=False,
        idempotency_key=f"{record.id}-{len(record.attempts)}",
        tags=["evenkeel", record.incident.resource, "approval"],
        flow_run_name=f"Approve {', '.join(step.tool for step in record.attempts[-1].plan.steps)} on {record.incident.resource}?",
    )
    address = f"{PREFECT_UI_URL.value() or ''}/v2/runs/flow-run/{run.id}"
    return f"waits for a person until {until:%Y-%m-%d %H:%M:%SZ}: {reason}; answer at {address}", record


def form(plan: Plan, catalog: Catalog) -> type[RunInput]:
    """The form of an approval: the answer, a comment, and each step's arguments within their bounds."""
    fields: dict[str, Any] = {
        "answer": (
            Answer,
            Field(description="approve: the steps are carried out. reject: none is, and another plan is made."),
        ),
        "comment": (str, Field("", max_length=2000, description="For the record; with reject, the next plan takes it into account.")),
    }
    for position, step in enumerate(plan.steps, start=1):
        declared = catalog.tools[step.tool]
        if not declared.args_model.model_fields:
            continue
        arguments = create_model(
            f"ArgumentsOf{position}",
            __base__=_Arguments,
            **{name: (info.annotation, info) for name, info in declared.args_model.model_fields.items()},  # type: ignore[call-overload]
        )
        title = f"{position}. {step.tool} on {step.target}"
        fields[f"step_{position}"] = (arguments, Field(arguments.model_validate(step.args), title=title, description=declared.summary))
    return create_model("Approval", __base__=RunInput, **fields)


def answered(plan: Plan, answer: RunInput) -> Plan:
    """The plan with the arguments that the person sent."""
    given = answer.model_dump(mode="json")
    steps: list[Step] = []
    for position, step in enumerate(plan.steps, start=1):
        args = given.get(f"step_{position}", step.args)
        steps.append(
            step if args == step.args else step.model_copy(update={"args": args, "why": f"{step.why} (arguments set by a person)"})
        )
    return plan.model_copy(update={"steps": tuple(steps)})


async def close_run(flow_run_id: str, state: Any) -> None:
    """Put a run that is still waiting into its final state; one that is gone from the server stays so."""
    async with get_client() as client:
        try:
            run = await client.read_flow_run(UUID(flow_run_id))
        except ObjectNotFound:
            return
        if run.state is not None and not run.state.is_final():
            await client.set_flow_run_state(run.id, state, force=True)


class _Arguments(BaseModel):
    """Arguments as a form sends them; the tool's own strict model checks them once more."""

    model_config = ConfigDict(extra="forbid")
