"""SmolLM2-135M behind Gemini's wire protocol: a model that is nearly always wrong, and in ways that nobody would script.

`python -m tests.chaos_model.small_model MODEL.gguf` prints its base URL on one line, and answers until it is ended.
"""

import argparse
import asyncio
import json
import random
from pathlib import Path
from typing import Any

import xllamacpp

from compose.gemini_server import GeminiServer
from compose.gemini_wire import Answer, Request, calling, lookup, said

CONTEXT_TOKENS = 4096
INSTRUCTION_CHARACTERS = 1200
QUESTION_CHARACTERS = 2400
"""What it is given of a prompt: more than it understands, and no more than two shared cores read in a few seconds."""
SHARE_BOUND_TO_THE_SCHEMA = 0.7
"""Of the answers, so many have the schema's form, as Gemini's do; the others are what the model says when nobody holds it."""
LONGEST_WORDS = 40
MOST_ITEMS = 2


class SmallModel:
    """A script for the server that asks the model. Bounds on numbers are not enforced, so that they have to be checked."""

    def __init__(self, path: Path, seed: int) -> None:
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = CONTEXT_TOKENS
        parameters.n_parallel = 1
        parameters.warmup = False
        # One thread each: two that share busy cores wait for each other at every layer.
        parameters.cpuparams.n_threads = 1
        parameters.cpuparams_batch.n_threads = 1
        parameters.verbosity = -1
        self._server = xllamacpp.Server(parameters)
        self._random = random.Random(seed)

    def __call__(self, request: Request) -> Answer:
        """Its answer: a plan or what it takes for one; calls of functions while those are offered."""
        if request.schema is None and request.functions:
            return self._calls(request)
        bound = request.schema is not None and self._random.random() < SHARE_BOUND_TO_THE_SCHEMA
        choice = self._asked(request, bounded(request.schema or {}) if bound else None)
        return said(choice["text"], "MAX_TOKENS" if choice["cut"] else "STOP", **choice["usage"])

    def _calls(self, request: Request) -> Answer:
        schema = {
            "type": "object",
            "properties": {"name": {"type": "string", "enum": list(request.functions)}, "args": {"type": "object", "properties": {}}},
            "required": ["name", "args"],
        }
        choice = self._asked(request, schema)
        try:
            call = json.loads(choice["text"])
            return calling((call["name"], call["args"]))
        except (ValueError, KeyError):
            return said(choice["text"], "MAX_TOKENS" if choice["cut"] else "STOP", **choice["usage"])

    def _asked(self, request: Request, schema: dict[str, Any] | None) -> dict[str, Any]:
        settings = lookup(request.body, "generationConfig") or {}
        question: dict[str, Any] = {
            "messages": messages(request),
            "max_tokens": int(lookup(settings, "maxOutputTokens") or 256),
            "temperature": 0.9,
            "seed": self._random.randrange(2**31),
        }
        if schema is not None:
            question["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        answer = self._server.handle_chat_completions(question)
        if "choices" not in answer:
            raise RuntimeError(f"the model's server refuses: {json.dumps(answer)[:500]}")
        (choice,) = answer["choices"]
        used = answer["usage"]
        return {
            "text": choice["message"]["content"] or "",
            "cut": choice["finish_reason"] == "length",
            "usage": {"promptTokenCount": used["prompt_tokens"], "candidatesTokenCount": used["completion_tokens"]},
        }


def messages(request: Request) -> list[dict[str, str]]:
    """The prompt in the model's form, each part cut in its middle."""
    instruction = text_of(lookup(request.body, "systemInstruction") or {})
    turns = [
        {"role": "assistant" if content.get("role") == "model" else "user", "content": cut(text_of(content), QUESTION_CHARACTERS)}
        for content in lookup(request.body, "contents") or ()
    ]
    return [{"role": "system", "content": cut(instruction, INSTRUCTION_CHARACTERS)}, *turns]


def text_of(content: dict[str, Any]) -> str:
    """What a turn says; what is no text as JSON."""
    return "\n".join(str(part["text"]) if "text" in part else json.dumps(part) for part in content.get("parts", ()))


def cut(text: str, characters: int) -> str:
    """Beginning and end of what is longer than that."""
    half = characters // 2
    return text if len(text) <= characters else f"{text[:half]}\n...\n{text[-half:]}"


def bounded(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema as a grammar that ends: short words, few items, any number."""
    found: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword == "properties":
            found[keyword] = {name: bounded(one) for name, one in value.items()}
        elif keyword == "anyOf":
            found[keyword] = [bounded(one) for one in value]
        elif keyword == "items":
            found[keyword] = bounded(value)
        elif keyword in {"type", "enum", "required"}:
            found[keyword] = value
    if found.get("type") == "string" and "enum" not in found:
        found["maxLength"] = LONGEST_WORDS
    if found.get("type") == "array":
        found["maxItems"] = min(schema.get("maxItems", MOST_ITEMS), MOST_ITEMS)
    return found


async def serve(model: SmallModel) -> None:
    """Answer until ended."""
    async with GeminiServer(model) as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the model's GGUF file")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    asyncio.run(serve(SmallModel(arguments.model, arguments.seed)))


if __name__ == "__main__":
    main()
