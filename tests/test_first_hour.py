"""The documents' commands can be taken out of them and are well-formed; `make first-hour` runs them in an empty machine."""

import shlex
import subprocess

import pytest
import yaml

from compose.control_plane import SERVER_SETTINGS
from tests.first_hour.document import DEPLOYMENT, GETTING_STARTED, ROOT, sections_of
from tests.first_hour.looks import AS_A_SERVICE, IN_THE_FIRST_HOUR


@pytest.mark.parametrize("document", [GETTING_STARTED, DEPLOYMENT])
def test_every_block_of_commands_is_one_for_a_shell(document: str) -> None:
    blocks = [block for section in sections_of((ROOT / document).read_text(encoding="utf-8")) for block in section.blocks]
    assert blocks
    for block in blocks:
        found = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, timeout=20, check=False)
        assert (found.returncode, found.stderr) == (0, ""), block


def test_each_section_has_its_look() -> None:
    assert len(sections_of((ROOT / GETTING_STARTED).read_text(encoding="utf-8"))) == len(IN_THE_FIRST_HOUR)
    titles = {section.title for section in sections_of((ROOT / DEPLOYMENT).read_text(encoding="utf-8"))}
    assert titles >= AS_A_SERVICE.keys()


def test_a_block_ends_with_its_fence() -> None:
    text = "# Title\n\n## 1. A\n\n```sh\none\n```\n\ntext\n\n```yaml\nname: no\n```\n\n## 2. B\n\n```sh\ntwo <<'END'\n  three\nEND\n```\n"
    assert [(section.title, section.blocks) for section in sections_of(text)] == [
        ("1. A", ("one\n",)),
        ("2. B", ("two <<'END'\n  three\nEND\n",)),
    ]


def test_the_services_have_the_servers_settings() -> None:
    unit = (ROOT / "docs/systemd/evenkeel-server.service").read_text(encoding="utf-8")
    words = [
        word for line in unit.splitlines() if line.startswith("Environment=") for word in shlex.split(line.removeprefix("Environment="))
    ]
    in_compose = yaml.safe_load((ROOT / "docs/compose.yaml").read_text(encoding="utf-8"))["services"]["server"]["environment"]
    for settings in (dict(word.split("=", 1) for word in words), in_compose):
        assert SERVER_SETTINGS.items() <= settings.items()
