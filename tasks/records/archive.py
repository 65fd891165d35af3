"""Past incidents as a file that may leave the machine."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from dotenv import dotenv_values

from tasks.core.errors import EvenkeelError
from tasks.core.redaction import Redactor
from tasks.core.replay import Archive, SavedIncident
from tasks.redacting import vendor_patterns


class NotExported(EvenkeelError):
    """A file that was named can't be read or written; nothing was exported."""


def archive_of(incidents: Sequence[SavedIncident], secrets: Iterable[str] = ()) -> Archive:
    """The incidents without these secrets and without what looks like one.

    What the flows know as a secret was masked before it was recorded.
    """
    redactor = Redactor(secrets, vendor_patterns())
    return Archive.model_validate(redactor.value(Archive(incidents=tuple(incidents)).model_dump(mode="json")))


def secrets_of(path: Path) -> list[str]:
    """The values of a file of NAME=value lines."""
    if not path.is_file():
        raise NotExported(f"--env-file: {path} is no file")
    return [value for value in dotenv_values(path, interpolate=False).values() if value]


def write_private(path: Path, text: str) -> None:
    """A new file that only its owner can read; NotExported if it is there already, or can't be written."""
    try:
        with open(path, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(text)
    except OSError as error:
        raise NotExported(f"--to: {path}: {error.strerror}") from error
