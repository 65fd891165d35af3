"""Log lines as templates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.log_templates import count_templates

LINES = """\
2026-01-01 00:00:00.123 UTC [123] shop@shop FATAL:  sorry, too many clients already
2026-01-01 00:00:01.456 UTC [124] shop@shop FATAL:  sorry, too many clients already
2026-01-01 00:00:01.456 UTC [124] ERROR:  relation "abc" does not exist at character 12
2026-01-01 00:00:01.456 UTC [124] STATEMENT:  SELECT 1
2026-01-01 00:00:01.456 UTC [125] LOG:  checkpoint starting
2026/11/24 00:12:30 [error] 7#7: *12 connect() failed (111: Connection refused), client: 10.0.0.1, request: "GET /a HTTP/1.1"
2026/11/24 00:12:31 [error] 7#7: *13 connect() failed (111: Connection refused), client: fe80::1, request: "GET /b HTTP/1.1"
2026/11/24 00:12:31 [error] 7#7: *14 connect() failed (111: Connection refused), client: 10.0.0.3, request: "GET /c cut
2026/11/24 00:12:30 [alert] 1378#1378: 256 worker_connections are not enough
2026/11/24 00:12:30 [notice] 1#1: signal process started
1234:M 01 Jan 2026 00:00:00.123 # WARNING Memory overcommit must be enabled!
1234:M 01 Jan 2026 00:00:00.123 # Can't save in background: fork: Cannot allocate memory
1234:M 01 Jan 2026 00:00:00.123 * Ready to accept connections
{"time": "2026-01-01T00:00:00.000+00:00", "level": "ERROR", "message": "order 12 failed", "exception": "Traceback\\n  x\\nKeyError: 'abc'"}
{"time": "2026-01-01T00:00:00.000+00:00", "level": "INFO", "message": "order 12 done"}
{"level": "ERROR", cut
10.0.0.1 - - "GET / HTTP/1.1" 200
""".splitlines()


def test_lines_that_differ_in_figures_and_visitors_are_one_and_the_severe_stand_first() -> None:
    assert count_templates(LINES) == (
        "2x FATAL shop@shop sorry, too many clients already",
        "1x alert <n> worker_connections are not enough",
        "3x error connect() failed (<n>: Connection refused), client: <ip>, request: <s>",
        "1x ERROR relation <s> does not exist at character <n>",
        "1x WARNING Memory overcommit must be enabled!",
        "1x WARNING Can't save in background: fork: Cannot allocate memory",
        "1x ERROR order <n> failed KeyError: <s>",
        "1x ERROR <s>",
    )


@pytest.mark.parametrize(
    ("said", "template"),
    [
        ("could not connect to 10.0.0.1:5432", "could not connect to <ip>"),
        ("could not connect to [::1]:5432 or ::1", "could not connect to <ip> or <ip>"),
        ("request 550e8400-e29b-41d4-a716-446655440000 at 0x7ffe, commit deadbeef01", "request <uuid> at <hex>, commit <hex>"),
        ("since 2026-01-01T00:00:00.123Z, at 12:30:01", "since <time>, at <time>"),
        ("took 1.5 s, can't go on: 'abc' isn't", "took <n> s, can't go on: <s> isn't"),
        ("password=[masked] refused", "password=[masked] refused"),
        ("facade of std::vector", "facade of std::vector"),
    ],
)
def test_what_differs_from_case_to_case_is_a_placeholder(said: str, template: str) -> None:
    assert count_templates([f"ERROR: {said}"]) == (f"1x ERROR {template}",)


def test_the_number_and_the_length_of_templates_are_bounded() -> None:
    found = count_templates([f"ERROR {'x' * number}" for number in range(1, 400)], limit=5, max_length=50)
    assert len(found) == 5
    assert all(len(template) <= 50 for template in count_templates(["ERROR " + "x" * 400], max_length=50))


@given(lines=st.lists(st.text() | st.sampled_from(LINES)))
def test_any_log_gives_bounded_templates(lines: list[str]) -> None:
    found = count_templates(lines, limit=3, max_length=80)
    assert len(found) <= 3
    assert all(len(template) <= 80 for template in found)
