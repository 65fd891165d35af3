"""Work pools: the same deployments go to any kind, and what a kind needs is its pool's default, as its own worker takes it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from prefect.workers.process import ProcessWorker

from blocks.errors import ConfigurationError
from blocks.work_pool import TYPES, job_variables, main, with_defaults
from compose.google_cloud.discovery import load_document
from compose.google_cloud.schema import Checker

IMAGE = "registry.example/evenkeel:0.1.0"
ROOT = Path(__file__).parents[2]
WORKERS = ROOT / ".venv" / "pool-workers" / "bin" / "python"
TEMPLATE = ProcessWorker.get_default_base_job_template()


@pytest.mark.parametrize("name", ["prefect.yaml", "docs/deployments.yaml"])
def test_deployments_say_nothing_of_the_kind_of_their_pool(name: str) -> None:
    declared = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    assert declared["pull"] == [], "a directory of whoever deploys is none of the run's"
    for one in declared["deployments"]:
        assert one["work_pool"]["name"] == "{{ $EVENKEEL_POOL }}"
        assert one["work_pool"].keys() <= {"name", "work_queue_name"}


@pytest.mark.parametrize("name", ["prefect.yaml", "docs/deployments.yaml"])
def test_old_records_are_deleted_by_default(name: str) -> None:
    declared = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))["deployments"]
    (nightly,) = (one for one in declared if one["entrypoint"] == "flows.delete_history.delete_history")
    assert [schedule.get("active", True) for schedule in nightly["schedules"]] == [True]


def test_the_workers_template_keeps_all_but_the_defaults() -> None:
    changed = with_defaults(TEMPLATE, {"command": "python -m prefect.engine", "env": {"TZ": "UTC"}})
    properties = changed["variables"]["properties"]
    assert (properties["command"]["default"], properties["env"]["default"]) == ("python -m prefect.engine", {"TZ": "UTC"})
    assert changed["job_configuration"] == TEMPLATE["job_configuration"]
    assert properties.keys() == TEMPLATE["variables"]["properties"].keys()
    assert (
        "default" not in TEMPLATE["variables"]["properties"]["command"] or TEMPLATE["variables"]["properties"]["command"]["default"] is None
    )


def test_what_a_kind_does_not_take_is_named() -> None:
    with pytest.raises(ConfigurationError) as refused:
        with_defaults(TEMPLATE, {"image": IMAGE, "stream_output": "sometimes", "command": "true"})
    unknown, wrong = refused.value.problems
    assert unknown.startswith("image: no variable of this kind of pool; it has command, env,")
    assert wrong == "stream_output: 'sometimes' is not of type 'boolean'"


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind != "process"])
def test_runs_in_containers_want_an_image(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([kind, "--name", "elsewhere"]) == 2
    assert "give --image NAME" in capsys.readouterr().err
    assert job_variables(kind, IMAGE)["image"] == IMAGE


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the workers of every kind would hand on, by the workers themselves."""
    if not WORKERS.exists():
        pytest.skip("the workers of other kinds are not installed: make pool-workers")
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_documented_manifests_are_kubernetes_own(rendered: dict[str, Any]) -> None:
    assert rendered["manifests"] == []
    documents = list(yaml.safe_load_all((ROOT / "docs" / "kubernetes.yaml").read_text(encoding="utf-8")))
    names = {(one["kind"], one["metadata"]["name"]) for one in documents}
    wanted = job_variables("kubernetes", IMAGE)
    assert ("ServiceAccount", wanted["service_account_name"]) in names
    assert {one["metadata"]["namespace"] for one in documents} == {wanted["namespace"]}
