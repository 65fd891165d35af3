"""Everything that can go wrong with a model, as the server's script and as what the plan then says of it."""

import json
import math
from typing import NamedTuple

from compose.gemini_wire import Answer, Script, blocked, calling, in_turn, refusal, said, silent, structured
from tests.scripted_gemini import API_KEY, plan, planned, step

HOUR = 3600
REPAIRS = 2


class Case(NamedTuple):
    """How the model fails; no script: nobody listens."""

    script: Script | None
    says: str
    """A pattern that the plan's notes match."""
    requests: int | None = None
    """How many requests that costs; none: it goes on until the time is up."""


def always(answer: Answer, says: str, requests: int | None = 1) -> Case:
    return Case(in_turn(answer), says, requests)


def invalid(answer: Answer, says: str) -> Case:
    """An answer that stays wrong when it is told what is wrong: one repair, no more."""
    return Case(in_turn(answer), says, REPAIRS)


def endless(opening: str) -> Answer:
    return said(opening * 50_000)


FAILURES: dict[str, Case] = {
    # The service answers, and there is nothing in it.
    "prompt blocked for safety": always(blocked("SAFETY"), "the prompt was blocked: SAFETY"),
    "prompt prohibited": always(blocked("PROHIBITED_CONTENT"), "the prompt was blocked"),
    "answer held back for safety": always(silent("SAFETY"), "ended with SAFETY"),
    "answer is a recitation": always(silent("RECITATION"), "ended with RECITATION"),
    "thinking ate all tokens": always(silent("MAX_TOKENS", promptTokenCount=900, thoughtsTokenCount=8192), "ended with MAX_TOKENS"),
    "answer cut at the limit": always(said('{"decision": "act", "st', "MAX_TOKENS"), "ended with MAX_TOKENS"),
    "malformed function call": always(silent("MALFORMED_FUNCTION_CALL"), "MALFORMED_FUNCTION_CALL"),
    "a finish reason of the future": always(silent("SOMETHING_NEW"), "ended with SOMETHING_NEW"),
    "empty object": always(Answer({}), "without candidates"),
    "no candidates": always(Answer({"candidates": []}), "without candidates"),
    "no parts": always(Answer({"candidates": [{"content": {"role": "model"}, "finishReason": "STOP"}]}), "without content"),
    "a list": always(Answer([1]), ""),
    "empty body": always(Answer(b""), ""),
    "a page of HTML": always(Answer(b"<html>Sign in</html>", headers={"content-type": "text/html"}), "not one of the API's"),
    "bytes that are no text": always(Answer(b"\xff\xfe\x00{"), ""),
    "fields of other types": always(Answer({"candidates": "none", "usageMetadata": {"promptTokenCount": "many"}}), ""),
    # The answer is there, and it is no plan.
    "prose": invalid(said("Sure! I would raise the memory limit."), "not JSON"),
    "JSON in a fence": invalid(said(f"```json\n{json.dumps(plan(step()))}\n```"), "not JSON"),
    "JSON that breaks off": invalid(said(json.dumps(plan(step()))[:-9]), "not JSON"),
    "a JSON list": invalid(structured([plan(step())]), "answer"),
    "JSON nested without end": always(endless("["), "RecursionError"),
    "a number that is none": invalid(said(json.dumps(plan(step(args={"mebibytes": math.nan})))), "not JSON"),
    "fields missing": invalid(structured({"decision": "act"}), "diagnosis"),
    "fields of its own": invalid(planned(step(), approved=True, autonomy="auto"), "approved"),
    "an unknown decision": invalid(planned(decision="shrug"), "decision"),
    "act without a step": invalid(planned(), "at least one step"),
    "nothing, with a step": invalid(planned(step(), decision="nothing"), "others? have none|other decisions have none"),
    "too many steps": invalid(planned(*[step()] * 9), "9 steps"),
    "a step without a reason": invalid(planned(step(why="")), "why"),
    "an unknown tool": invalid(planned(step("redis_explode", args={})), "redis_explode"),
    "a tool of another kind": invalid(planned(step("postgres_restart", args={})), "postgres_restart"),
    "another resource": invalid(planned(step(target="shop-db")), "shop-db"),
    "a text for a number": invalid(planned(step(args={"mebibytes": "100"})), "mebibytes"),
    "a number out of range": invalid(planned(step(args={"mebibytes": 10**9})), "mebibytes"),
    "an argument too many": invalid(planned(step(args={"mebibytes": 100, "force": True})), "force"),
    "an argument too few": invalid(planned(step(args={})), "mebibytes"),
    "a function call for a plan": invalid(calling(("redis_flush", {})), "not JSON"),
    # The service refuses.
    "400 whatever the schema": always(refusal(400, "INVALID_ARGUMENT", "The specified schema is too complex."), "looser schema", 2),
    "400 for the key": always(
        Answer(
            {
                "error": {
                    "code": 400,
                    "status": "INVALID_ARGUMENT",
                    "message": f"API key not valid: {API_KEY}",
                    "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
                }
            },
            status=400,
        ),
        "API key is not valid",
    ),
    "401": always(refusal(401, "UNAUTHENTICATED", f"who is {API_KEY}?"), "401"),
    "403": always(refusal(403, "PERMISSION_DENIED", "not for you"), "403"),
    "404": always(refusal(404, "NOT_FOUND", "no such model"), "404"),
    "429 for an hour": always(refusal(429, "RESOURCE_EXHAUSTED", "quota", HOUR), "asks to wait 3600 s"),
    "429 for an hour by header": always(Answer({"error": {"code": 429}}, 429, {"retry-after": str(HOUR)}), "asks to wait 3600 s"),
    "500 for ever": always(refusal(500, "INTERNAL", "an internal error"), "500", None),
    "503 as a page": always(Answer(b"<html>overloaded</html>", 503, {"content-type": "text/html"}), "503", None),
    "a redirect to somewhere else": always(Answer(b"", 302, {"location": "/v1beta/models/thief:generateContent"}), "302|not one of"),
    # The line fails.
    "nobody listens": Case(None, "connection failed"),
    "it hangs": always(Answer({}, wait_seconds=math.inf), "no answer within|no plan within|no time is left", None),
    "it trickles": always(Answer(b" " * 9000, byte_every_seconds=0.05), "no answer within|no plan within|no time is left", None),
    "reset before an answer": always(Answer(b"", reset_after_bytes=0), "connection failed", None),
    "reset within an answer": always(Answer(b"x" * 5000, reset_after_bytes=2000), "connection failed", None),
}
