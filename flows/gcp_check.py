"""Check an inventory's access to Google Cloud: which identity is used, what it lacks, and how that is granted. Changes nothing.

`python -m flows.gcp_check INVENTORY` does the same without a run.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import httpx
from prefect import flow, get_run_logger
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from blocks.errors import ConfigurationError
from tasks.connecting import live
from tasks.core.errors import EvenkeelError, ProbeBroken
from tasks.google_check import Checked, check_google

ANSWERS = {True: "yes", False: "no", None: "not to be told"}


@flow(name="gcp-check", flow_run_name="Check the access of {inventory} to Google Cloud", persist_result=False)
async def gcp_check(inventory: str = "cloud", only_reading: bool = False) -> State[Any]:
    """Say which identity is used in Google Cloud, which of the needed permissions it lacks, and how to grant them.

    Args:
        inventory: Name of an inventory with a section `gcp`.
        only_reading: Only what the probes need, for an identity that is not meant to change anything.
    """
    try:
        found = await _checked(inventory, only_reading)
    except ProbeBroken as error:
        return Failed(message=str(error))
    for kind, seen in found.listed.items():
        get_run_logger().info("%s: %s", kind, seen)
    await acreate_table_artifact(_rows(found), key=f"gcp-check-{inventory}", description=f"## {found.verdict}")
    await acreate_markdown_artifact(_markdown(found), key=f"gcp-access-{inventory}", description=found.verdict)
    is_well = not found.lacking and not found.problems
    return Completed(message=found.verdict) if is_well else Failed(message=found.verdict)


async def _checked(inventory: str, only_reading: bool) -> Checked:
    async with live(inventory) as opened:
        if opened.google is None:
            raise ProbeBroken(f"gcp: the inventory {inventory!r} has no section gcp; add it, and register the inventory again")
        return await check_google(opened.google, opened.inventory, opened.catalog, only_reading=only_reading)


def _rows(found: Checked) -> list[dict[str, str]]:
    return [
        {
            "permission": need.permission,
            "granted": ANSWERS[held],
            "without it": "nothing is seen" if need.reads else "these tools fail",
            "needed by": ", ".join(need.wanted_by),
        }
        for need, held in found.held.items()
    ]


def _markdown(found: Checked) -> str:
    lines = [f"# {found.project} as {found.identity}", "", found.verdict, ""]
    lines += [f"- {kind}: {seen}" for kind, seen in found.listed.items()]
    if found.remedy:
        lines += ["", "A role of just what is needed; where it exists already, use the second command in place of the first:", ""]
        lines += [f"    {command}" for command in found.remedy]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 where something is lacking; 2 where it could not be checked, with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="python -m flows.gcp_check", description="Say what the identity lacks in Google Cloud.")
    parser.add_argument("inventory", help="name of a registered inventory with a section gcp")
    parser.add_argument("--read-only", action="store_true", help="only what the probes need")
    options = parser.parse_args(arguments)
    try:
        found = asyncio.run(_checked(options.inventory, options.read_only))
    except (ConfigurationError, EvenkeelError) as error:
        print(error, file=sys.stderr)
        return 2
    except httpx.HTTPError as error:
        print(f"Prefect's API failed: {type(error).__name__}: {error}; is the server running at PREFECT_API_URL?", file=sys.stderr)
        return 2
    for row in _rows(found):
        print(f"{row['granted']:<15}{row['permission']:<38}{row['needed by']}")
    print(_markdown(found))
    return 1 if found.lacking or found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
