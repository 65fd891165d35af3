"""Plans by Gemini: a bounded investigation, then one structured answer that is checked strictly, repaired at most once."""

from typing import TYPE_CHECKING, Any

from blocks.schema import Rules
from tasks.catalog import Catalog
from tasks.core.answer_schema import answer_schema, loose_schema, read_answer
from tasks.core.errors import PlanInvalid
from tasks.core.grounding import doubts
from tasks.core.models import Context, Plan
from tasks.core.plans import check_plan
from tasks.core.prompts import SYSTEM, build_prompt, data_block, feedback
from tasks.planners.gemini_client import GeminiClient, ModelFailed, Session
from tasks.planners.gemini_errors import text_of
from tasks.planners.investigation import Investigation, Read, open_readings

if TYPE_CHECKING:
    from google.genai import types

LONGEST_ECHO = 20_000
"""Characters of an invalid answer that go back to the model with its problems; more is not worth its tokens."""


class GeminiPlanner:
    """Asks Gemini. It decides nothing but the plan: what may be done with it is the policy's to say.

    Without `read` it investigates nothing, and plans from the context alone.
    """

    def __init__(self, client: GeminiClient, catalog: Catalog, rules: Rules, read: Read | None, instructions: str = SYSTEM) -> None:
        self._client = client
        self._catalog = catalog
        self._rules = rules
        self._read = read
        self._instructions = instructions
        self.name = f"gemini:{client.settings.model}"

    async def plan(self, context: Context, session: Session) -> Plan:
        """A checked plan with what it used and how it came about.

        ModelFailed where no usable answer came, PlanInvalid where the repaired one is invalid too. `session` tells even then what
        was used.
        """
        prompt = build_prompt(
            context,
            max_input_tokens=self._client.settings.max_input_tokens,
            max_steps=self._rules.max_steps,
            instructions=self._instructions,
        )
        if prompt.dropped:
            session.notes.append(f"left out of the prompt: {', '.join(prompt.dropped)}")
        user, findings = prompt.user, list[str]()
        readings = open_readings(self._catalog.tools, context)
        if readings and self._read is not None:
            investigation = Investigation(self._client, readings, self._read, context.incident.resource)
            await investigation.run(session, prompt.system, user)
            findings = investigation.findings
        if findings:
            user = f"{user}\n\nWhat you read since:\n{data_block(findings)}"
            session.notes += [f"investigated: {finding}" for finding in findings]
        plan = await self._answer(context, session, prompt.system, user)
        session.notes += [f"doubtful: {doubt}" for doubt in doubts(plan, context, findings)]
        return plan.model_copy(update={"usage": session.usage, "notes": tuple(session.notes)})

    async def _answer(self, context: Context, session: Session, system: str, user: str) -> Plan:
        from google.genai import types

        contents = [types.Content(role="user", parts=[types.Part(text=user)])]
        schema = answer_schema(context.tools, resource=context.incident.resource, max_steps=self._rules.max_steps)
        try:
            content = await self._client.generate(session, contents, self._config(system, schema))
        except ModelFailed as error:
            if not error.is_request_fault:
                raise
            session.notes.append(f"gemini: {error}; asked again with a looser schema")
            schema = loose_schema(self._rules.max_steps)
            content = await self._client.generate(session, contents, self._config(system, schema))
        try:
            return self._checked(content, context)
        except PlanInvalid as error:
            session.notes.append(f"gemini: repaired an invalid answer: {error}")
            contents += [_echo(content), types.Content(role="user", parts=[types.Part(text=feedback(error.problems))])]
        return self._checked(await self._client.generate(session, contents, self._config(system, schema)), context)

    def _checked(self, content: "types.Content", context: Context) -> Plan:
        raw = read_answer(text_of(content), planner=self.name, resource=context.incident.resource)
        return check_plan(raw, tools=self._catalog.tools, context=context, rules=self._rules)

    def _config(self, system: str, schema: dict[str, Any]) -> "types.GenerateContentConfig":
        from google.genai import types

        return types.GenerateContentConfig(
            system_instruction=system,
            response_mime_type="application/json",
            response_json_schema=schema,
            **self._client.common_config(),
        )


def _echo(content: "types.Content") -> "types.Content":
    """The model's own words, as it gave them; cut where they are endless."""
    from google.genai import types

    text = text_of(content)
    return content if len(text) <= LONGEST_ECHO else types.Content(role="model", parts=[types.Part(text=text[:LONGEST_ECHO])])
