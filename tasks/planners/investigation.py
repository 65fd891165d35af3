"""The first phase of planning: the model reads what it still wants to know, by read-only tools, within bounds."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue, ValidationError

from blocks.schema import Risk
from tasks.core.answer_schema import lower
from tasks.core.declare import Tool
from tasks.core.errors import EvenkeelError
from tasks.core.models import Context, Step
from tasks.core.plans import parse_args
from tasks.core.prompts import data_block
from tasks.planners.gemini_client import GeminiClient, ModelFailed, Session
from tasks.planners.gemini_errors import as_json

if TYPE_CHECKING:
    from google.genai import types

MOST_TURNS = 3
MOST_CALLS = 6
LONGEST_RESULT = 3000
DONE = "done"
INVITATION = (
    "Before you plan you may read more with these functions: at most {calls} calls in {turns} turns. "
    "Read only what could change your plan. Call done() as soon as you know enough."
)

Read = Callable[[Step], Awaitable[dict[str, JsonValue]]]
"""Runs a read-only tool and answers what it read; raises an EvenkeelError where that fails."""


def open_readings(tools: Mapping[str, Tool], context: Context) -> dict[str, Tool]:
    """The read-only tools of the incident's kind whose result the context does not hold.

    Those without arguments were read while the context was gathered, so what is left needs an argument that only a reader of the
    context can choose. A reading that failed then counts as read: that a server does not answer is a fact. For a first plan only
    those are left that fit what is measured; after one that did not help, all. Where nothing is left the context suffices, and no
    request is spent on asking.
    """
    return {
        name: tool
        for name, tool in sorted(tools.items())
        if tool.service is context.incident.kind and tool.risk is Risk.READ_ONLY and name not in context.facts and _helps(tool, context)
    }


def _helps(tool: Tool, context: Context) -> bool:
    return bool(context.attempts) or (tool.fits is not None and tool.fits(context.observation))


class Investigation:
    """One investigation; `findings` is what was read, one line each, for the prompt of the plan."""

    def __init__(self, client: GeminiClient, tools: Mapping[str, Tool], read: Read, resource: str) -> None:
        self._client = client
        self._tools = tools
        self._read = read
        self._resource = resource
        self._calls = 0
        self.findings: list[str] = []

    async def run(self, session: Session, system: str, user: str) -> None:
        """Let the model read. What it says otherwise is not used; an unusable answer ends it, a refusing service raises ModelFailed."""
        from google.genai import types

        invitation = INVITATION.format(calls=MOST_CALLS, turns=MOST_TURNS)
        contents = [types.Content(role="user", parts=[types.Part(text=user), types.Part(text=invitation)])]
        config = self._config(system)
        for _ in range(MOST_TURNS):
            try:
                content = await self._client.generate(session, contents, config)
            except ModelFailed as error:
                if error.is_service_fault and not error.is_request_fault:
                    raise
                session.notes.append(f"gemini: investigation ended: {error}")
                return
            calls = [part.function_call for part in content.parts or () if part.function_call is not None]
            if not calls:
                return
            # As it came: thought signatures are in it.
            contents.append(content)
            answers = [types.Part(function_response=await self._answered(call)) for call in calls]
            if any(call.name == DONE for call in calls) or self._calls >= MOST_CALLS:
                return
            contents.append(types.Content(role="user", parts=answers))

    async def _answered(self, call: "types.FunctionCall") -> "types.FunctionResponse":
        from google.genai import types

        response = await self._response(call.name or "", call.args or {})
        return types.FunctionResponse(id=call.id, name=call.name, response=response)

    async def _response(self, name: str, args: Mapping[str, Any]) -> dict[str, Any]:
        if name == DONE:
            return {"output": "plan now"}
        tool = self._tools.get(name)
        if tool is None:
            return {"error": f"no such function; there are {', '.join((*self._tools, DONE))}"}
        if self._calls >= MOST_CALLS:
            return {"error": "no calls are left; call done()"}
        self._calls += 1
        step = Step(tool=name, target=self._resource, args=dict(args), why="asked for while investigating")
        try:
            checked = parse_args(tool, step).model_dump(mode="json")
            read = as_json(await self._read(step.model_copy(update={"args": checked})), LONGEST_RESULT)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False))
            return {"error": f"wrong arguments: {problems}"}
        except EvenkeelError as error:
            self.findings.append(f"{name} {as_json(checked, LONGEST_RESULT)}: failed: {error}")
            return {"error": data_block(str(error))}
        self.findings.append(f"{name} {as_json(checked, LONGEST_RESULT)}: {read}")
        return {"output": data_block(read)}

    def _config(self, system: str) -> "types.GenerateContentConfig":
        from google.genai import types

        declared = [
            types.FunctionDeclaration(
                name=name, description=tool.summary, parameters_json_schema=lower(tool.args_model.model_json_schema())
            )
            for name, tool in self._tools.items()
        ]
        declared.append(types.FunctionDeclaration(name=DONE, description="End the investigation; the plan comes next."))
        allowed = [*self._tools, DONE]
        return types.GenerateContentConfig(
            system_instruction=system,
            tools=[types.Tool(function_declarations=declared)],
            tool_config=types.ToolConfig(
                function_calling_config=types.FunctionCallingConfig(
                    mode=types.FunctionCallingConfigMode.ANY, allowed_function_names=allowed
                )
            ),
            **self._client.common_config(),
        )
