"""The section `mcp` of an inventory file. No Prefect."""

import re

from pydantic import Field, field_validator

from blocks.listener import Listener
from blocks.schema import Autonomy

LISTEN = "127.0.0.1:9096"


class McpAccess(Listener):
    """Where the MCP server listens, who may connect to it, and how far what is called over it may go."""

    listen: str = Field(LISTEN, description="host:port; 127.0.0.1 is reached from the same machine only.")
    hosts: tuple[str, ...] = Field((), description="Names under which it is reached, besides 127.0.0.1, localhost and that of `listen`.")
    origins: tuple[str, ...] = Field((), description="Origins of web pages that may call it, such as https://inspector.example.")
    autonomy: Autonomy | None = Field(
        None, description="How far calls may go: `approve` asks for every change, `propose` changes nothing. It only lowers `rules`."
    )

    @field_validator("hosts")
    @classmethod
    def _are_names(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [host for host in given if re.fullmatch(r"[A-Za-z0-9.-]+|[0-9a-fA-F:]*:[0-9a-fA-F:]*", host) is None]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no host name; write it without scheme, port and wildcard, such as evenkeel.example")
        return given

    @field_validator("origins")
    @classmethod
    def _are_origins(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [origin for origin in given if re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]+", origin) is None]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no origin; write scheme, host and port alone, such as https://inspector.example:8443")
        return given
