"""`make up`: server, schedules and lab until Ctrl-C."""

import argparse
import asyncio
import sys
from pathlib import Path

from compose.cli import run_until_done
from compose.progress import console
from compose.stack import LAB_KINDS, LabKind, stack


async def up(directory: Path, port: int, lab_kind: LabKind) -> int:
    """Keep everything running and say where it can be looked at."""
    async with stack(directory, port, lab_kind) as running:
        address = running.plane.ui_url
        console.print(
            f"\n[bold]The Prefect UI: {address}[/bold]\n"
            f"  status of the lab   {address}/v2/artifacts/key/status-lab\n"
            f"  history of fixes    {address}/v2/artifacts/key/fixes-lab\n"
            f"  try a fault         {address}/deployments  (scenario/by-hand, then Run)\n"
            f"  the shop            {running.lab.web.url}\n"
            f"Commands of your own: export PREFECT_API_URL={running.plane.api_url}\n"
            "Ctrl-C ends everything."
        )
        await asyncio.Event().wait()
    return 0


def main() -> int:
    """Entry point of `python -m compose.up`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(".evenkeel"), help="where lab, server and records are kept")
    parser.add_argument("--port", type=int, default=4200, help="port of the Prefect server")
    parser.add_argument("--lab", choices=LAB_KINDS, default=LAB_KINDS[0], help="what runs the lab's servers")
    arguments = parser.parse_args()
    return run_until_done(up(arguments.directory, arguments.port, arguments.lab))


if __name__ == "__main__":
    sys.exit(main())
