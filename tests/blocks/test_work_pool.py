"""Work pools: the same deployments go to any kind, and what a kind needs is its pool's default, as its own worker takes it.

What the workers make of it is tried by `make test-pools`.
"""

import json
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from prefect.workers.process import ProcessWorker

from blocks.errors import ConfigurationError
from blocks.work_pool import TYPES, job_variables, main, with_defaults

IMAGE = "registry.example/evenkeel:0.1.0"
ROOT = Path(__file__).parents[2]
TEMPLATE = ProcessWorker.get_default_base_job_template()


@pytest.mark.parametrize("name", ["prefect.yaml", "docs/deployments.yaml", "docs/pool.yaml"])
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


@pytest.mark.parametrize("kind", TYPES)
def test_what_a_pool_is_given_is_valid_for_its_kind(kind: str) -> None:
    shipped = files("prefect.server.api") / "collections_data" / "views" / "aggregate-worker-metadata.json"
    workers = [worker for collection in json.loads(shipped.read_text(encoding="utf-8")).values() for worker in collection.values()]
    (template,) = (worker["default_base_job_configuration"] for worker in workers if worker["type"] == TYPES[kind])
    properties = with_defaults(template, job_variables(kind, IMAGE))["variables"]["properties"]
    assert properties["command"]["default"].endswith("python -m prefect.engine") or kind == "process"
    assert properties.get("image", {}).get("default") == (None if kind == "process" else IMAGE)


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
