"""PostgreSQL refuses to run as root: how it is started without root's rights where the lab itself is root's."""

import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from compose.description import LabError

NOBODY = 65534

# Another user only inside: files stay root's, so a checkout below /root can be read.
NAMESPACE = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--")
# Another user for good, who may still pass root's directories. For containers that forbid user namespaces.
CAPABILITY = (
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--inh-caps=-all,+dac_override",
    "--ambient-caps=-all,+dac_override",
    "--",
)


@dataclass(frozen=True)
class Unprivileged:
    """Words to put before a command, and who has to own its files."""

    prefix: tuple[str, ...]
    owner: int

    def own(self, *paths: Path) -> None:
        """Give files, and directories with all below them, to that user, where they are another's."""
        for path in paths:
            if path.stat().st_uid != self.owner:
                for one in (path, *path.rglob("*")):
                    os.chown(one, self.owner, self.owner, follow_symlinks=False)


@cache
def unprivileged(program: Path) -> Unprivileged:
    """How to run that program without root's rights; LabError where this machine offers no way."""
    if os.geteuid() != 0:
        return Unprivileged((), os.geteuid())
    ways = (Unprivileged(NAMESPACE, 0), Unprivileged(CAPABILITY, NOBODY))
    refusals: list[str] = []
    for way in ways:
        refusal = _refusal((*way.prefix, str(program), "--version"))
        if refusal is None:
            return way
        refusals.append(f"{way.prefix[0]}: {refusal}")
    raise LabError(
        "PostgreSQL does not run as root, and this machine lets root start nothing as another user "
        f"({'; '.join(refusals)}); start the lab as a user other than root"
    )


def _refusal(command: tuple[str, ...]) -> str | None:
    """Why a command fails, or None."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except FileNotFoundError:
        return "not installed (package util-linux)"
    except subprocess.TimeoutExpired:
        return "no answer"
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
