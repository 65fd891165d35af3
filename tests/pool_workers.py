"""What each kind of worker makes of its pool's defaults, as JSON: `.venv/pool-workers/bin/python -m tests.pool_workers IMAGE`.

Run by an interpreter of its own, which `make test-pools` makes and which has all kinds of workers installed. Nothing is asked of a
server or a cluster.
"""

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import kubernetes_asyncio.client.models as kubernetes_models
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.workers.base import BaseWorker

from blocks.work_pool import TYPES, job_variables, with_defaults

MANIFESTS = Path(__file__).parent.parent / "docs" / "kubernetes.yaml"
CONTAINED = re.compile(r"(list|dict)[(\[](?:str, )?(.+)[)\]]")
SCALARS = {"str": str, "int": int, "bool": bool}


async def rendered(kind: str, image: str) -> dict[str, Any]:
    """The configuration of one run, as the worker of this kind would hand it on."""
    worker = BaseWorker.get_worker_class_from_type(TYPES[kind])
    assert worker is not None, f"no worker for {kind} is installed: make test-pools"
    template = with_defaults(worker.get_default_base_job_template(), job_variables(kind, image))
    async with get_client() as client:
        configuration = await worker.job_configuration.from_template_and_values(template, {}, client=client)
    configuration.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="watch-lab", deployment_id=uuid4()))
    found: dict[str, Any] = configuration.model_dump(mode="json", exclude={"credentials"})
    return found


def kubernetes_problems(value: Any, declared: str, where: str) -> list[str]:
    """What a manifest says that Kubernetes has no such field for, or of another type."""
    contained = CONTAINED.fullmatch(declared)
    if contained is not None:
        container, inner = list if contained[1] == "list" else dict, contained[2]
        if not isinstance(value, container):
            return [f"{where}: not a {contained[1]}"]
        items = enumerate(value) if isinstance(value, list) else value.items()
        return [problem for at, item in items for problem in kubernetes_problems(item, inner, f"{where}.{at}")]
    if not declared.startswith("V1"):
        return [] if isinstance(value, SCALARS.get(declared, object)) else [f"{where}: {value!r} is no {declared}"]
    if not isinstance(value, dict):
        return [f"{where}: not an object"]
    model = getattr(kubernetes_models, declared)
    attributes = {name: attribute for attribute, name in model.attribute_map.items()}
    unknown = [f"{where}.{name}: no such field of {declared}" for name in value if name not in attributes]
    known = [(name, field) for name, field in value.items() if name in attributes]
    inside = [
        problem for name, field in known for problem in kubernetes_problems(field, model.openapi_types[attributes[name]], f"{where}.{name}")
    ]
    return unknown + inside


async def everything(image: str) -> dict[str, Any]:
    """Each kind's configuration, and what Kubernetes would find wrong with its job and with the manifests of the documentation."""
    found = {kind: await rendered(kind, image) for kind in TYPES}
    job = kubernetes_problems(found["kubernetes"]["job_manifest"], "V1Job", "job")
    documents = list(yaml.safe_load_all(MANIFESTS.read_text(encoding="utf-8")))
    manifests = [problem for one in documents for problem in kubernetes_problems(one, f"V1{one['kind']}", one["kind"])]
    return {"rendered": found, "job": job, "manifests": manifests}


if __name__ == "__main__":
    json.dump(asyncio.run(everything(sys.argv[1])), sys.stdout)
