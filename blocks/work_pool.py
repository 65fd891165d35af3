"""Make a work pool of any kind: `python -m blocks.work_pool docker --image IMAGE [--name POOL] [--set VARIABLE=VALUE]`.

A deployment names its pool and nothing of the pool's kind, so the same deployments go to any: what a kind needs to start a run are
the pool's own defaults, and they are checked against the template of the kind's worker before they are saved.
"""

import argparse
import asyncio
import copy
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.utilities.schema_tools.validation import validate
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

from blocks.errors import ConfigurationError

NAME = "evenkeel"
TYPES = {"process": "process", "docker": "docker", "kubernetes": "kubernetes", "cloud-run": "cloud-run-v2"}
"""Kind of a pool -> the type of worker that Prefect knows it by."""
ENGINE = "python -m prefect.engine"
"""Starts a run in a third of the time that a worker's own command takes."""
RUN_MEMORY = "1Gi"


def job_variables(kind: str, image: str | None = None) -> dict[str, Any]:
    """What a pool of this kind starts a run with. ConfigurationError where a kind in containers is given no image."""
    if kind == "process":
        # Where this process has them: its workers have evenkeel at the same place on every machine.
        return {"command": shlex.join([sys.executable, "-m", "prefect.engine"]), "working_dir": str(Path.cwd())}
    if not image:
        raise ConfigurationError(f"image: runs of a {kind} pool are in containers; build compose/evenkeel/Dockerfile and give --image NAME")
    in_containers = {"image": image, "command": ENGINE}
    match kind:
        case "docker":
            # A run a minute: what has ended would fill the disk.
            return {**in_containers, "image_pull_policy": "IfNotPresent", "auto_remove": True, "mem_limit": "1g"}
        case "kubernetes":
            return {
                **in_containers,
                "namespace": "evenkeel",
                "service_account_name": "evenkeel-run",
                "image_pull_policy": "IfNotPresent",
                "finished_job_ttl": 600,
                # A machine that has to be made first, and the image fetched.
                "pod_watch_timeout_seconds": 300,
                "cpu_request": "250m",
                "memory_request": "384Mi",
                "memory_limit": RUN_MEMORY,
            }
        case _:
            # A run ends when its remediations have; a second attempt is Prefect's and the records' to decide, not the platform's.
            limits = {"cpu": "1000m", "memory": RUN_MEMORY, "timeout": 3600, "max_retries": 0}
            return {**in_containers, **limits, "launch_stage": "GA"}


def with_defaults(template: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """The template of a kind of worker with these as its defaults.

    ConfigurationError names every variable that the kind does not know, and every value that it does not take.
    """
    changed = copy.deepcopy(dict(template))
    properties: dict[str, dict[str, Any]] = changed["variables"]["properties"]
    known = ", ".join(sorted(properties))
    unknown = [f"{name}: no variable of this kind of pool; it has {known}" for name in variables.keys() - properties]
    wrong = [
        f"{'.'.join(str(step) for step in error.absolute_path)}: {error.message}"
        for error in validate(dict(variables), changed["variables"], ignore_required=True)
    ]
    if unknown or wrong:
        raise ConfigurationError(sorted(unknown) + wrong)
    for name, value in variables.items():
        properties[name]["default"] = value
    return changed


async def save_work_pool(kind: str, name: str, variables: Mapping[str, Any]) -> None:
    """Make the pool, or give the one that is there these defaults; it keeps its queues, limits and workers.

    ConfigurationError if a variable is wrong, or a pool of another kind has the name.
    """
    if not PREFECT_API_URL.value():
        raise ConfigurationError("PREFECT_API_URL is not set; run: prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api")
    template = await get_default_base_job_template_for_infrastructure_type(TYPES[kind])
    if template is None:
        raise ConfigurationError(f"{kind}: Prefect knows no such worker; install the extra `pools`")
    template = with_defaults(template, variables)
    async with get_client() as client:
        try:
            known = await client.read_work_pool(name)
        except ObjectNotFound:
            await client.create_work_pool(WorkPoolCreate(name=name, type=TYPES[kind], base_job_template=template))
            return
        if known.type != TYPES[kind]:
            raise ConfigurationError(f"name: {name!r} is a pool of type {known.type!r}; give another --name, or delete that pool")
        await client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no assignment; write VARIABLE=VALUE, the value as in YAML")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"{name}: {error}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 2 with every problem on stderr, and nothing saved; 1 where Prefect's API does not answer."""
    parser = argparse.ArgumentParser(prog="python -m blocks.work_pool", description="Make a work pool, or change its defaults.")
    parser.add_argument("kind", choices=TYPES)
    parser.add_argument("--name", default=NAME, help=f"default: {NAME}")
    parser.add_argument("--image", help="what the runs' containers are made from; every kind but process needs one")
    parser.add_argument(
        "--set", type=_assignment, action="append", default=[], metavar="VARIABLE=VALUE", help="a job variable's default; may be repeated"
    )
    options = parser.parse_args(arguments)
    try:
        variables = {**job_variables(options.kind, options.image), **dict(options.set)}
        asyncio.run(save_work_pool(options.kind, options.name, variables))
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    except httpx.HTTPError as error:
        print(f"Prefect's API failed: {type(error).__name__}: {error}; is the server running at PREFECT_API_URL?", file=sys.stderr)
        return 1
    told = ", ".join(f"{name}: {value}" for name, value in variables.items())
    print(f"work pool {options.name} ({options.kind}) is saved: {told}")
    print(f"deploy to it: EVENKEEL_POOL={options.name} prefect --no-prompt deploy --all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
