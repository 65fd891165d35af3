"""Run a simulator until SIGTERM or Ctrl-C: `python -m compose.google_cloud --directory DIR`.

It plays DIR/world.yaml, writes DIR/simulator.json when everything answers, says `ready`, and takes away what it started.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from compose.cli import run_until_done
from compose.google_cloud.description import cloud_description_path, save_cloud
from compose.google_cloud.plane_building import open_planes
from compose.google_cloud.simulator import Simulator
from compose.google_cloud.world import load_world


async def serve(directory: Path, authority: Path, *, lifeline: bool) -> int:
    """Play the directory's world; with `lifeline` only until standard input ends."""
    loop, leave = asyncio.get_running_loop(), asyncio.Event()

    def starter_is_gone() -> None:
        loop.remove_reader(0)
        leave.set()

    if lifeline:
        # Nothing is ever written to it: readable means that it has ended.
        loop.add_reader(0, starter_is_gone)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    world = load_world(directory)
    async with (
        open_planes(world, directory) as (planes, addresses),
        Simulator(directory, world, planes, authority) as simulator,
    ):
        save_cloud(directory, simulator.description(addresses))
        try:
            print("ready", flush=True)
            await leave.wait()
        finally:
            cloud_description_path(directory).unlink(missing_ok=True)
    return 0


def main() -> int:
    """Entry point."""
    # gRPC would watch every process that is started, and it has nothing in those.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    parser = argparse.ArgumentParser(prog="python -m compose.google_cloud", description="Play Google Cloud.")
    parser.add_argument("--directory", type=Path, required=True, help="holds world.yaml; keys and simulator.json are written there")
    parser.add_argument("--authority", type=Path, help="directory of ca.crt and ca.key, made when missing; by default the same")
    parser.add_argument("--lifeline", action="store_true", help="end when standard input ends")
    arguments = parser.parse_args()
    directory = arguments.directory.resolve()
    return run_until_done(serve(directory, (arguments.authority or directory).resolve(), lifeline=arguments.lifeline))


if __name__ == "__main__":
    sys.exit(main())
