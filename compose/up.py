"""`make up`: server, schedules and lab until Ctrl-C."""

import argparse
import asyncio
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal

from compose.cli import run_until_done
from compose.google_cloud.world import default_world
from compose.progress import console
from compose.stack import LAB_KINDS, LabKind, Running, Stack, cloud_stack, stack

AnyKind = LabKind | Literal["cloud"]


async def up(directory: Path, port: int, lab_kind: AnyKind) -> int:
    """Keep everything running and say where it can be looked at."""
    async with _starting(directory, port, lab_kind) as running:
        address = running.plane.ui_url
        inventory = "cloud" if lab_kind == "cloud" else "lab"
        shop = f"  the shop            {running.lab.web.url}\n" if isinstance(running, Stack) else ""
        console.print(
            f"\n[bold]The Prefect UI: {address}[/bold]\n"
            f"  status of the lab   {address}/v2/artifacts/key/status-{inventory}\n"
            f"  history of fixes    {address}/v2/artifacts/key/fixes-{inventory}\n"
            f"  try a fault         {address}/deployments  (scenario/by-hand with inventory {inventory}, then Run)\n"
            f"{shop}"
            f"Commands of your own: export PREFECT_API_URL={running.plane.api_url}\n"
            "Ctrl-C ends everything."
        )
        await asyncio.Event().wait()
    return 0


def _starting(directory: Path, port: int, lab_kind: AnyKind) -> AbstractAsyncContextManager[Running]:
    if lab_kind == "cloud":
        return cloud_stack(directory, default_world(), port, mixed=True)
    return stack(directory, port, lab_kind)


def main() -> int:
    """Entry point of `python -m compose.up`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(".evenkeel"), help="where lab, server and records are kept")
    parser.add_argument("--port", type=int, default=4200, help="port of the Prefect server")
    parser.add_argument(
        "--lab",
        choices=(*LAB_KINDS, "cloud"),
        default=LAB_KINDS[0],
        help="what runs the lab's servers; cloud: processes, and a simulated Google Cloud project beside them",
    )
    arguments = parser.parse_args()
    return run_until_done(up(arguments.directory, arguments.port, arguments.lab))


if __name__ == "__main__":
    sys.exit(main())
