"""What each kind of worker makes of its pool's defaults, by the workers' own code: run by `make test-pools`."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from blocks.work_pool import job_variables
from compose.google_cloud.discovery import load_document
from compose.google_cloud.schema import Checker

IMAGE = "registry.example/evenkeel:0.1.0"
ROOT = Path(__file__).parents[2]
WORKERS = ROOT / ".venv" / "pool-workers" / "bin" / "python"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the workers of every kind would hand on, by the workers themselves."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    account = {"type": "service_account", "project_id": "shop", "client_email": "run@shop.iam.gserviceaccount.com", "private_key": pem}
    account |= {"private_key_id": "1", "token_uri": "http://127.0.0.1:1/token"}
    path = tmp_path_factory.mktemp("google") / "key.json"
    path.write_text(json.dumps(account), encoding="utf-8")
    environment = {**os.environ, "GOOGLE_APPLICATION_CREDENTIALS": str(path), "PREFECT_API_URL": "http://127.0.0.1:1/api"}
    command = [str(WORKERS), "-m", "tests.pool_workers", IMAGE]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_each_kind_of_worker_takes_its_defaults(rendered: dict[str, Any]) -> None:
    found = rendered["rendered"]
    assert found["process"]["command"].endswith("-m prefect.engine")
    assert found["process"]["working_dir"] == str(ROOT)
    docker = found["docker"]
    assert (docker["image"], docker["command"], docker["auto_remove"], docker["mem_limit"]) == (
        IMAGE,
        "python -m prefect.engine",
        True,
        "1g",
    )
    assert docker["env"]["PREFECT__FLOW_RUN_ID"]

    job = found["kubernetes"]["job_manifest"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    # As `args`, so that the image's entrypoint goes first.
    assert (container["image"], container["args"], container.get("command")) == (IMAGE, ["python", "-m", "prefect.engine"], None)
    assert {one["name"] for one in container["env"]} >= {"PREFECT_API_URL", "PREFECT__FLOW_RUN_ID"}
    assert container["resources"]["limits"]["memory"] == "1Gi"
    assert (job["metadata"]["namespace"], pod["serviceAccountName"]) == ("evenkeel", "evenkeel-run")
    assert (job["spec"]["ttlSecondsAfterFinished"], job["spec"]["backoffLimit"]) == (600, 0)
    # Prefect's own template has two fields of the job in its pod; the cluster leaves them out.
    misplaced = [f"job.spec.template.spec.{name}: no such field of V1PodSpec" for name in ("completions", "parallelism")]
    assert sorted(rendered["job"]) == misplaced

    body = found["cloud-run"]["job_body"]
    task = body["template"]["template"]
    (container,) = task["containers"]
    assert (container["image"], container["command"]) == (IMAGE, ["python", "-m", "prefect.engine"])
    assert (task["timeout"], task["maxRetries"], container["resources"]["limits"]) == ("3600s", 0, {"cpu": "1000m", "memory": "1Gi"})
    (method,) = (one for one in load_document("run.v2").methods if one.id == "run.projects.locations.jobs.create")
    assert Checker(method, sending=True).body(method.request, body) == [], "Google's own description of a job"


def test_the_documented_manifests_are_kubernetes_own(rendered: dict[str, Any]) -> None:
    assert rendered["manifests"] == []
    documents = list(yaml.safe_load_all((ROOT / "docs" / "kubernetes.yaml").read_text(encoding="utf-8")))
    names = {(one["kind"], one["metadata"]["name"]) for one in documents}
    wanted = job_variables("kubernetes", IMAGE)
    assert ("ServiceAccount", wanted["service_account_name"]) in names
    assert {one["metadata"]["namespace"] for one in documents} == {wanted["namespace"]}
