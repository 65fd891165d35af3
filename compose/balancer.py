"""Nginx in front of the replicas of Prefect's API: one address, which answers while one of them does."""

import os
from collections.abc import Sequence
from pathlib import Path

from compose.description import HOST, write_private
from compose.named_processes import Command
from compose.service import answers_well, packaged_program
from compose.web import PROGRAM

# What a dead replica did not take is given to the next one. A request that it may have begun is not: the client repeats what it can.
CONFIGURATION = """\
# Written at each start.
{main}
worker_processes 1;

events {{
    worker_connections 4096;
}}

http {{
    access_log off;
    client_max_body_size 64m;
    proxy_http_version 1.1;
    proxy_connect_timeout 2s;
{paths}
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        '' close;
    }}

    upstream prefect {{
{servers}
    }}

    server {{
        listen {listen};
        location / {{
            proxy_pass http://prefect;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            # Events are streamed over sockets on which nothing may be said for long.
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }}
    }}
}}
"""
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def balancer_configuration(listen: str, replicas: Sequence[str], main: str, paths: str = "") -> str:
    """Nginx's configuration; `listen` and the replicas are addresses with ports."""
    servers = "\n".join(f"        server {replica} max_fails=1 fail_timeout=2s;" for replica in replicas)
    return CONFIGURATION.format(listen=listen, servers=servers, main=main, paths=paths)


def balancer(directory: Path, port: int, replica_ports: Sequence[int]) -> Command:
    """A balancer on that port of the loopback."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    user = "user root root;\n" if os.geteuid() == 0 else ""
    main = f'{user}daemon off;\npid "{directory}/nginx.pid";\nerror_log stderr notice;'
    paths = "".join(f'    {name}_temp_path "{directory}/{name}_temp";\n' for name in TEMPORARY)
    path = directory / "nginx.conf"
    write_private(path, balancer_configuration(f"{HOST}:{port}", [f"{HOST}:{one}" for one in replica_ports], main, paths))
    words = (str(packaged_program(*PROGRAM)), "-p", f"{directory}/", "-c", str(path), "-e", "stderr")
    return Command(words, dict(os.environ), lambda _pid: answers_well(HOST, port, "/api/health"), 30)
