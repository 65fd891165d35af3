"""The catalogue's tools over MCP: those that read, and those that change something and go through policy, approval, lock and undo."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from fastmcp.exceptions import ToolError
from fastmcp.server.context import Context
from fastmcp.server.dependencies import get_context
from fastmcp.tools.base import InputRequiredToolResult, Tool, ToolResult
from mcp import types as protocol
from pydantic import ConfigDict, Field

from blocks.errors import ConfigurationError
from blocks.schema import Autonomy, Inventory, Risk
from tasks import mcp_calls as calls
from tasks.authorising import standing_of
from tasks.catalog import Catalog
from tasks.connecting import Live, live
from tasks.core import declare
from tasks.core.detection import open_incident
from tasks.core.errors import EvenkeelError
from tasks.core.models import Context as PlanningContext
from tasks.core.models import Incident, Step
from tasks.core.policy import Action, Ruling, authorise
from tasks.execution import call_tool
from tasks.mcp_asking import Questions, client_name, require_asking
from tasks.mcp_calls import Call, Called
from tasks.probing import probe_resource

CarryOut = Callable[[Call], Coroutine[Any, Any, Called]]
"""Runs a call as a flow, which authorises it anew, and tells what came of it."""
PROGRESS_SECONDS = 2.0


class Changes:
    """Calls that change something: considered, asked about, and carried out by a flow that outlives the client's patience."""

    def __init__(self, carry_out: CarryOut, questions: Questions, autonomy: Autonomy | None) -> None:
        self._carry_out = carry_out
        self._questions = questions
        self._autonomy = autonomy
        self._under_way: set[asyncio.Task[Called]] = set()

    async def make(
        self, context: Context, tool: declare.Tool, inventory: str, arguments: dict[str, Any]
    ) -> Called | protocol.InputRequiredResult:
        """Carry the call out as far as policy and person let it. EvenkeelError where it can't be considered."""
        reply = self._questions.answered(context)
        async with live(inventory) as opened:
            redactor = opened.redactor
            client = redactor.text(client_name(context))
            step = calls.step_of(tool, arguments, opened.inventory)
            step = step.model_copy(update={"why": redactor.text(step.why)})
            if redactor.value(step.args) != step.args:
                raise EvenkeelError("arguments: they hold a secret, or what looks like one; nothing was done")
            ruling, incident = await considered(opened, step, self._autonomy)
        if reply is None and ruling.action is Action.ASK:
            asked = await self._questions.ask(context, calls.question(step, tool, incident.observation, ruling, client))
            if isinstance(asked, protocol.InputRequiredResult):
                return asked
            reply = asked
        answer, comment = ("not asked", "") if reply is None else (reply.answer, redactor.text(reply.comment))
        return await self._carried_out(context, Call(fix=incident.id, step=step, client=client, answer=answer, comment=comment))

    async def _carried_out(self, context: Context, call: Call) -> Called:
        """A change that has begun is brought to its end, also where the client is gone meanwhile."""
        task = asyncio.create_task(self._carry_out(call), name=f"call {call.fix}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        seconds = 0.0
        while not (await asyncio.wait({task}, timeout=PROGRESS_SECONDS))[0]:
            seconds += PROGRESS_SECONDS
            await context.report_progress(seconds, message=f"{call.step.tool} on {call.step.target} is under way")
        return task.result()

    async def finished(self) -> None:
        """Wait for the calls that are under way."""
        await asyncio.gather(*self._under_way, return_exceptions=True)


async def considered(opened: Live, step: Step, autonomy: Autonomy | None, *, approved: bool = False) -> tuple[Ruling, Incident]:
    """The policy's word on a step, and what was measured just now as the incident that the step would be for."""
    resource = opened.inventory.resource(step.target)
    observation = await probe_resource(opened, resource)
    incident = open_incident(opened.inventory.name, observation, datetime.now(UTC))
    context = PlanningContext(incident=incident, resource=resource, observation=observation)
    ruling = authorise(
        step,
        opened.catalog.tools[step.tool],
        tools=opened.catalog.tools,
        incident=incident,
        resource=resource,
        observation=observation,
        rules=opened.inventory.rules,
        standing=await standing_of(opened.inventory, opened.records, context, autonomy),
        approved=approved,
    )
    return ruling, incident


class ReadingTool(Tool):
    """A tool that only reads: free to call."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    declared: declare.Tool = Field(exclude=True)
    inventory: str = Field(exclude=True)

    async def run(self, arguments: dict[str, Any]) -> ToolResult:
        """What was read."""
        try:
            async with live(self.inventory) as opened:
                step = calls.step_of(self.declared, arguments, opened.inventory)
                change = await call_tool(opened, step)
        except (EvenkeelError, ConfigurationError) as error:
            raise ToolError(f"{type(error).__name__}: {error}") from None
        return ToolResult(structured_content=calls.Read(resource=step.target, read=change.after).model_dump(mode="json"))


class ChangingTool(Tool):
    """A tool that changes a server. The client must be one that can ask a person, be one asked in the end or not."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    declared: declare.Tool = Field(exclude=True)
    inventory: str = Field(exclude=True)
    changes: Changes = Field(exclude=True)

    async def run(self, arguments: dict[str, Any]) -> ToolResult:
        """What came of it, once it is settled."""
        context = get_context()
        require_asking(context, self.declared.name)
        try:
            called = await self.changes.make(context, self.declared, self.inventory, arguments)
        except (EvenkeelError, ConfigurationError) as error:
            raise ToolError(f"{type(error).__name__}: {error}") from None
        if isinstance(called, protocol.InputRequiredResult):
            return InputRequiredToolResult(called)
        text = f"{called.verdict}: {called.message}"
        return ToolResult(content=text, structured_content=called.model_dump(mode="json"), is_error=called.verdict != "Completed")


def tools_of(catalog: Catalog, inventory: Inventory, changes: Changes) -> list[Tool]:
    """The whole catalogue."""
    made: list[Tool] = []
    for declared in catalog.tools.values():
        common: dict[str, Any] = {
            "name": declared.name,
            "title": declared.title,
            "description": calls.description(declared),
            "parameters": calls.input_schema(declared, inventory),
            "annotations": calls.annotations(declared),
            "tags": {str(declared.service), str(declared.risk)},
            "declared": declared,
            "inventory": inventory.name,
        }
        if declared.risk is Risk.READ_ONLY:
            made.append(ReadingTool(**common, output_schema=calls.schema_of(calls.Read)))
        else:
            made.append(ChangingTool(**common, output_schema=calls.schema_of(Called), changes=changes))
    return made
