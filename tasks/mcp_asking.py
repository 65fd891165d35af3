"""Asking a person through an MCP client, in both eras of the protocol.

Up to 2025-11-25 the server sends a request of its own, `elicitation/create`, while the call waits. From 2026-07-28 on the call is
answered by `input_required` with the question in it, and the client makes it again with the answer.
"""

import asyncio
import time
from dataclasses import dataclass, field
from secrets import token_urlsafe
from typing import Literal

from fastmcp.exceptions import ToolError
from fastmcp.server.context import Context
from mcp import types as protocol
from mcp.server.elicitation import render_elicitation_schema
from mcp.shared.exceptions import MCPError
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, Field, ValidationError

KEY = "approval"
NAME_LENGTH = 60
NO_ELICITATION = (
    "refused: {tool} changes a server, and this client can't ask a person (it declares no capability `elicitation` for forms). "
    "Nothing was done. Use a client with elicitation, or the Prefect UI."
)


class Reply(BaseModel):
    """The form that a person fills in."""

    answer: Literal["approve", "reject"] = Field(description="approve: it is carried out. reject: nothing is done.")
    comment: str = Field("", max_length=2000, description="For the record.")


REJECTED = Reply(answer="reject", comment="")


def client_name(context: Context) -> str:
    """What the client calls itself, as plain text."""
    params = context.session.client_params
    given = "" if params is None else params.client_info.name
    return "".join(letter if letter.isprintable() else " " for letter in given).strip()[:NAME_LENGTH] or "a client without a name"


def require_asking(context: Context, tool: str) -> None:
    """Refuse a client that does not say that it can put a form before a person, as its era of the protocol has it.

    ToolError up to 2025-11-25; from 2026-07-28 on MCPError with the code for a missing capability.
    """
    capabilities = context.session.client_capabilities
    elicitation = None if capabilities is None else capabilities.elicitation
    # One that names no mode means forms.
    if elicitation is not None and (elicitation.form is not None or elicitation.url is None):
        return
    said = NO_ELICITATION.format(tool=tool)
    if context.session.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        raise ToolError(said)
    wanted = protocol.ClientCapabilities(elicitation=protocol.ElicitationCapability(form=protocol.FormElicitationCapability()))
    data = protocol.MissingRequiredClientCapabilityErrorData(required_capabilities=wanted)
    told = data.model_dump(by_alias=True, mode="json", exclude_none=True)
    raise MCPError(code=protocol.MISSING_REQUIRED_CLIENT_CAPABILITY, message=said, data=told)


@dataclass
class Questions:
    """The questions of the newer era that are open: an answer counts once, within its time, and only for what was asked."""

    seconds: float
    _open: dict[str, float] = field(default_factory=dict)

    async def ask(self, context: Context, text: str) -> Reply | protocol.InputRequiredResult:
        """The person's answer, or in the newer era the result with which the client is sent to get it. No answer in time is a no."""
        if context.session.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return self._sent_away(text)
        try:
            async with asyncio.timeout(self.seconds):
                result = await context.elicit(text, Reply)
        except TimeoutError:
            return Reply(answer="reject", comment=f"nobody answered within {self.seconds:g} s")
        except ValueError as error:  # pydantic's too: accepted with something else than was asked for
            raise ToolError(f"{KEY}: the client's answer does not fit the form; nothing was done") from error
        return result.data if result.action == "accept" and isinstance(result.data, Reply) else REJECTED

    def answered(self, context: Context) -> Reply | None:
        """The answer that this call brings, in the newer era; None: it brings none, or none to a question that is open."""
        state, responses = context.request_state, context.input_responses
        if state is None or responses is None or KEY not in responses:
            return None
        if self._open.pop(state, 0) < time.monotonic():
            raise ToolError(f"{KEY}: this question is answered already, or its time is over; nothing was done, make the call again")
        result = responses[KEY]
        if not isinstance(result, protocol.ElicitResult) or result.action != "accept":
            return REJECTED
        try:
            return Reply.model_validate(result.content)
        except ValidationError as error:
            raise ToolError(f"{KEY}: the client's answer does not fit the form; nothing was done") from error

    def _sent_away(self, text: str) -> protocol.InputRequiredResult:
        now = time.monotonic()
        for stale in [name for name, until in self._open.items() if until < now]:
            del self._open[stale]
        # Sealed by the framework on the wire, and bound to the tool, its arguments and the token that the call came with.
        state = token_urlsafe(18)
        self._open[state] = now + self.seconds
        asked = protocol.ElicitRequestFormParams(message=text, requested_schema=render_elicitation_schema(Reply))
        return protocol.InputRequiredResult(input_requests={KEY: protocol.ElicitRequest(params=asked)}, request_state=state)
