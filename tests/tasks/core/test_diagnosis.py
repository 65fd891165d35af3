"""Judging a diagnosis by its words and by what it cites."""

from typing import Any

import pytest

from tasks.core.diagnosis import Cause, misjudged, named_in
from tasks.core.models import Decision, Plan


def plan(diagnosis: str, *evidence: str) -> Plan:
    return Plan(planner="gemini", decision=Decision.ESCALATE, diagnosis=diagnosis, evidence=evidence)


@pytest.mark.parametrize(
    ("text", "causes"),
    [
        ("the memory limit is too small for the data", {Cause.MEMORY}),
        ("checkout forgot to end a transaction", {Cause.LOCK}),
        ("the certificate is out of date", {Cause.CERTIFICATE}),
        ("the application's login was changed at run time", {Cause.LOGIN}),
        ("it blocks the way", set()),
    ],
)
def test_a_cause_is_known_by_its_words(text: str, causes: set[Cause]) -> None:
    assert named_in(text) == causes


def test_a_right_diagnosis_names_the_cause_and_cites_a_reading_or_quotes_the_finding() -> None:
    asked: dict[str, Any] = {"causes": {Cause.MEMORY}, "evidence": {"memory_percent"}, "quotes": {"97 % of 64 MiB in use"}}
    assert misjudged(plan("too little memory", "memory_percent is 97"), **asked) == ()
    assert misjudged(plan("too little memory", "97 % of 64 MiB in use; writes are refused"), **asked) == ()
    assert misjudged(plan("no idea", "it looks bad"), **asked) == (
        "it names no cause of the category memory: no idea",
        "it cites none of memory_percent",
    )
    assert misjudged(plan("no idea"), causes=(), evidence=()) == ()


def test_a_tempting_wrong_conclusion_is_an_error_beside_a_right_one() -> None:
    found = misjudged(
        plan("the upstream is wrong, for the shop is down", "page_status is 502"),
        causes={Cause.CONFIGURATION},
        evidence={"page_status"},
        ruled_out={Cause.STOPPED},
    )
    assert found == ("it concludes stopped, which is not the cause",)
