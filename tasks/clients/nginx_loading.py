"""A new text of the configuration, put in force whole or not at all."""

import contextlib
import hashlib
from collections.abc import Callable

from tasks.clients.config_file import ConfigFile, Content, discard
from tasks.clients.nginx import NginxClient
from tasks.clients.nginx_configuration import GOOD_BEFORE, KNOWN_GOOD
from tasks.clients.nginx_processes import Processes
from tasks.core.errors import NotApplicable, ToolFailed, Unreachable

Check = Callable[[Processes], None]
"""Raises ToolFailed where the new workers are not as wanted."""


async def load_text(
    client: NginxClient,
    file: ConfigFile,
    content: Content,
    text: str,
    before: Processes,
    check: Check | None = None,
    *,
    takes_back: bool = False,
) -> Processes:
    """Test the text, put it in the file's place, load it, and answer the new processes. Call it under the file's lock.

    However this ends, the file is whole and fits what is loaded: where new workers don't come, or `check` objects, the old content is
    back and loaded. `takes_back`: the text stood there before, and served well now only if it did so then.
    """
    await _put_in_place(client, file, content, text, before)
    try:
        after = await client.wait_for_new_workers(before)
        if check is not None:
            check(after)
    except ToolFailed:
        _put_back(file, content, text)
        # Whatever is loaded late is then the old file again. A server that is gone meanwhile loads nothing.
        with contextlib.suppress(NotApplicable, Unreachable):
            await client.signal_master(before)
        raise
    if takes_back:
        if file.kept(GOOD_BEFORE) == text:
            file.keep(KNOWN_GOOD, file.read())
    elif file.kept(KNOWN_GOOD) == content.text != text:
        file.keep(GOOD_BEFORE, content)
        file.keep(KNOWN_GOOD, file.read())  # an edit of what served well
    return after


def digest(text: str) -> str:
    """Which text this is, in few letters."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


async def _put_in_place(client: NginxClient, file: ConfigFile, content: Content, text: str, before: Processes) -> None:
    draft = file.draft(text, content)
    try:
        await client.check_config(str(draft.path))
        file.put(draft)
    finally:
        discard(draft)
    signalled = False
    try:
        await client.signal_master(before)
        signalled = True
    finally:
        if not signalled:
            _put_back(file, content, text)


def _put_back(file: ConfigFile, content: Content, text: str) -> None:
    """Restore the content, unless somebody wrote another one meanwhile."""
    now = file.read()
    if now.text == text != content.text:
        file.put(file.draft(content.text, now))
