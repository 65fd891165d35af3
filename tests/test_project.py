"""The project's own rules: a pure core, a README that tells the truth, deployments that exist."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

from tests.readme import outdated

ROOT = Path(__file__).parent.parent


def test_the_core_is_imported_without_prefect() -> None:
    code = (
        "import pkgutil, sys, importlib, tasks.core\n"
        "for entry in pkgutil.iter_modules(tasks.core.__path__, 'tasks.core.'): importlib.import_module(entry.name)\n"
        "heavy = [name for name in ('prefect', 'redis', 'psycopg', 'httpx', 'sqlalchemy') if name in sys.modules]\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_the_readmes_tables_are_those_of_the_catalogue() -> None:
    assert outdated(write=False) == [], "run `make docs`"


def test_every_deployment_names_a_flow_that_exists() -> None:
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    assert {one["entrypoint"] for one in declared} >= {"flows.monitor.monitor", "flows.remediate.remediate", "flows.scenario.scenario"}
    for one in declared:
        module, _, name = one["entrypoint"].rpartition(".")
        found = getattr(__import__(module, fromlist=[name]), name)
        assert set(one.get("parameters", {})) <= set(found.parameters.properties)


def test_constraints_pin_versions_and_name_no_address() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 100
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+", line)] == []
