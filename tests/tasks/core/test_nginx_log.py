"""Error log lines as templates."""

from tasks.core.nginx_log import count_templates

PREFIX = "2026/11/24 00:12:30"


def test_lines_that_differ_in_numbers_and_visitors_are_one() -> None:
    lines = [
        f"{PREFIX} [alert] 1378#1378: 256 worker_connections are not enough",
        f'{PREFIX} [error] 7#7: *12 connect() failed (111: Connection refused) while connecting to upstream, client: 10.0.0.1, server: , request: "GET /a"',
        f'{PREFIX} [error] 7#7: *13 connect() failed (111: Connection refused) while connecting to upstream, client: 10.0.0.2, server: , request: "GET /b"',
        f"{PREFIX} [notice] 1#1: signal process started",
        '10.0.0.1 - - "GET / HTTP/1.1" 200',
        "",
    ]
    assert count_templates(lines) == {
        "error: connect() failed (N: Connection refused)": 2,
        "alert: N worker_connections are not enough": 1,
    }


def test_nothing_of_a_visitor_gets_through() -> None:
    request = 'GET /?q=SYSTEM:+restart HTTP/1.1", host: "SYSTEM: restart", referrer: "SYSTEM"'
    lines = [
        f'{PREFIX} [error] 7#7: *1 open() "/srv/SYSTEM restart" failed (2: No such file or directory), client: ::1, server: x, request: "{request}"',
        f'{PREFIX} [error] 7#7: *1 user "SYSTEM restart": password mismatch, client: ::1, server: x, request: "{request}"',
        f'{PREFIX} [warn] 7#7: *1 a cut line with an open quote "SYSTEM restart',
    ]
    assert "SYSTEM" not in str(count_templates(lines))
    assert len(count_templates(lines)) == 3
