"""A run in a container of its own: the documented deployment, a Docker pool made by the documented command, and Prefect's own worker.

Run by `make test-pools`, with a container engine and the lab's images.
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client

from compose.control_plane import ControlPlane
from compose.description import LabDescription
from tasks.connecting import Live
from tasks.core.models import FixRecord, Verdict
from tasks.probing import probe_resource
from tests.flows.commands import output_of
from tests.tasks.engine import docker, inspected
from tests.tasks.unwell import incident_of

ROOT = Path(__file__).parents[2]
WORKERS = ROOT / ".venv" / "pool-workers" / "bin" / "python"
IMAGE = "evenkeel-lab-app"
POOL = "in-docker"

pytestmark = [pytest.mark.timeout(600), pytest.mark.docker]


def mounted(lab: LabDescription) -> list[str]:
    """The project as it is here, in place of an image that takes minutes to build; the records are a file of the lab."""
    read_only = [ROOT] if sys.base_prefix == "/usr" else [ROOT, Path(sys.base_prefix)]
    return [*(f"{path}:{path}:ro" for path in read_only), f"{lab.directory}:{lab.directory}"]


async def deploy(plane: ControlPlane, directory: Path) -> str:
    """The deployment that deletes history, as documented, and no other: the tests share the server."""
    declared = yaml.safe_load((ROOT / "docs" / "deployments.yaml").read_text(encoding="utf-8"))
    declared["deployments"] = [one for one in declared["deployments"] if one["entrypoint"] == "flows.delete_history.delete_history"]
    declared["deployments"][0]["name"] = POOL
    path = directory / "deployments.yaml"
    path.write_text(yaml.safe_dump(declared), encoding="utf-8")
    variables = {"EVENKEEL_POOL": POOL, "EVENKEEL_INVENTORY": "lab"}
    await plane.run("-m", "prefect", "--no-prompt", "deploy", "--prefect-file", str(path), "--all", environment=variables)
    return f"delete-history/{POOL}"


async def old_fix(opened: Live) -> FixRecord:
    when = datetime.now(UTC) - timedelta(days=40)
    observation = await probe_resource(opened, opened.inventory.resource("shop-cache"))
    incident = incident_of(observation, inventory="lab").model_copy(update={"id": "in-docker", "resource": "retired"})
    record = FixRecord(id="in-docker", incident=incident, before=observation, opened_at=when)
    assert await opened.records.open_fix(record, "test", when)
    assert await opened.records.close_fix(record, "test", Verdict.COMPLETED, "long ago", when)
    return record


async def test_a_run_of_a_docker_pool_is_a_container(
    opened: Live, lab: LabDescription, control_plane: ControlPlane, tmp_path: Path
) -> None:
    assert docker("images", "--quiet", IMAGE), "make lab builds it"
    settings = {
        "command": f"{sys.executable} -m prefect.engine",
        "volumes": mounted(lab),
        "auto_remove": False,  # to look at it afterwards
        "container_create_kwargs": {"user": "root"},
    }
    options = [word for name, value in settings.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    environment = control_plane.environment
    command = (str(WORKERS), "-m", "blocks.work_pool", "docker", "--name", POOL, "--image", IMAGE, *options)
    made = await output_of(*command, directory=ROOT, environment=environment)
    assert made.code == 0, made.error
    deployment = await deploy(control_plane, tmp_path)
    fix = await old_fix(opened)
    async with get_client() as client:
        found = await client.read_deployment_by_name(deployment)
        run = await client.create_flow_run_from_deployment(found.id, parameters={"older_than_days": 30})
        label = f"label=io.prefect.flow-run-id={run.id}"
        try:
            worker = (str(WORKERS), "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "docker", "--run-once")
            worked = await output_of(*worker, directory=ROOT, environment=environment)
            (name,) = docker("ps", "--all", "--quiet", "--filter", label).split()
            container = inspected(name)
            ended = await client.read_flow_run(run.id)
            assert ended.state is not None
            assert ended.state.is_completed(), (ended.state.message, docker("logs", name), worked.error)
        finally:
            for name in docker("ps", "--all", "--quiet", "--filter", label).split():
                docker("rm", "--force", name)
            await client.delete_deployment(found.id)
            await client.delete_work_pool(POOL)
    assert (container["Config"]["Image"], container["State"]["ExitCode"]) == (IMAGE, 0)
    assert container["HostConfig"]["Memory"] == 2**30
    assert await opened.records.get(fix.id) is None
