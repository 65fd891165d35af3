"""postgresql.auto.conf, the file that ALTER SYSTEM writes: one setting a line."""

from pathlib import Path

from tasks.clients.config_file import ConfigFile, discard
from tasks.clients.postgres import PostgresClient
from tasks.core.errors import NotApplicable

NAME = "postgresql.auto.conf"


def auto_conf(client: PostgresClient, data_directory: str | None = None) -> ConfigFile:
    """The file where the inventory says it is, else below the data directory as the server itself sees it.

    NotApplicable where neither is known, or the inventory names another file.
    """
    path = client.resource.config_path
    if path is None and data_directory is None:
        raise NotApplicable(f"{client.resource.name}: the inventory names no config_path; add the path of its {NAME}")
    found = Path(path) if path is not None else Path(str(data_directory)) / NAME
    if found.name != NAME:
        raise NotApplicable(f"{client.resource.name}: config_path is {found}; only {NAME} is edited, name that")
    return ConfigFile(found)


def setting_of(line: str) -> str:
    """The name of the setting that a line sets; empty for a comment."""
    return "" if line.lstrip().startswith("#") else line.replace("=", " ", 1).strip().partition(" ")[0].lower()


def lines_of(text: str, setting: str) -> list[str]:
    """The lines that set it."""
    return [line for line in text.splitlines(keepends=True) if setting_of(line) == setting]


def put_lines(file: ConfigFile, setting: str, lines: list[str]) -> None:
    """Let exactly these lines set it, and leave every other line of the file as it is now. Call it under the lock."""
    content = file.read()
    kept = [line for line in content.text.splitlines(keepends=True) if setting_of(line) != setting]
    draft = file.draft("".join(kept + lines), content)
    try:
        file.put(draft)
    finally:
        discard(draft)
