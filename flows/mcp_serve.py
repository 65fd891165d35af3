"""Serve an inventory over MCP: `python -m flows.mcp_serve --inventory lab` for stdio, with `--http` at the address of its section `mcp`."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from functools import partial

import httpx

from blocks.errors import ConfigurationError
from blocks.inventory import load_inventory
from blocks.mcp_access import load_mcp
from flows.call_tool import carry_out
from tasks.core.errors import EvenkeelError
from tasks.mcp_server import PATH, mcp_server, serve_http, serve_stdio


async def serve(name: str, *, http: bool) -> None:
    """Serve until the client is gone (stdio) or a signal comes (HTTP). ConfigurationError where HTTP has no token."""
    inventory, access = await load_inventory(name), await load_mcp(name)
    autonomy = None if access is None else access.autonomy
    run = partial(carry_out, name, autonomy)
    if not http:
        await serve_stdio(mcp_server(inventory, run, autonomy=autonomy))
        return
    if access is None:
        raise ConfigurationError(
            f"mcp: inventory {name!r} has no section `mcp` with a token; add it to its YAML file and register it again"
        )
    print(f"{name} is served over MCP at http://{access.listen}{PATH}; clients show the token of the section `mcp`", file=sys.stderr)
    await serve_http(mcp_server(inventory, run, token=access.token, autonomy=autonomy), access)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 2 with a sentence on stderr for what can't be done."""
    parser = argparse.ArgumentParser(prog="python -m flows.mcp_serve", description="Serve an inventory over MCP.")
    parser.add_argument("--inventory", default="lab", help="name of a registered inventory (default: lab)")
    parser.add_argument("--http", action="store_true", help="at the address of the inventory's section `mcp`, in place of stdin and stdout")
    options = parser.parse_args(arguments)
    try:
        asyncio.run(serve(options.inventory, http=options.http))
    except KeyboardInterrupt:
        return 0
    except (ConfigurationError, EvenkeelError) as error:
        print(error, file=sys.stderr)
        return 2
    except httpx.HTTPError as error:
        print(f"Prefect's API failed: {type(error).__name__}: {error}; is the server running at PREFECT_API_URL?", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
