"""A stand-in for `gcloud compute ssh`, which can't be had here: it notes its arguments and does on this machine what they ask for.

`--command` runs here with the standard input that it was given; `-L` forwards a local port, until it is ended.
"""

import json
import shlex
import sys
from pathlib import Path

PROGRAM = """\
import json, os, socket, subprocess, sys, threading
args = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(args) + "\\n")
if os.path.exists({refuse!r}):
    print("ERROR: (gcloud.compute.ssh) [/usr/bin/ssh] exited with return code [255].", file=sys.stderr)
    sys.exit(255)
if "--command" in args:
    sys.exit(subprocess.run(args[args.index("--command") + 1], shell=True).returncode)
bind, local, host, port = args[args.index("-L") + 1].split(":")

def pump(source, sink):
    while data := source.recv(65536):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)

with socket.create_server((bind, int(local))) as listening:
    while True:
        near, _ = listening.accept()
        far = socket.create_connection((host, int(port)))
        for pair in ((near, far), (far, near)):
            threading.Thread(target=pump, args=pair, daemon=True).start()
"""


class StandIn:
    """The program in a directory that goes onto the PATH."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._log, self._refuse = directory / "calls", directory / "refuse"
        source = PROGRAM.format(log=str(self._log), refuse=str(self._refuse))
        (directory / "stand_in.py").write_text(source)
        program = directory / "gcloud"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(directory / "stand_in.py"))} "$@"\n')
        program.chmod(0o755)

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of every call."""
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []

    def refuse(self, refuses: bool) -> None:
        """Whether it gets no connection."""
        if refuses:
            self._refuse.touch()
        else:
            self._refuse.unlink(missing_ok=True)
