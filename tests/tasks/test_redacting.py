"""Secrets stay out of observations, changes, errors and logs."""

import io
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import prefect.main  # noqa: F401 - sets the logging up
import pytest
from prefect.logging.handlers import APILogHandler

from blocks.schema import Kind
from tasks import redacting
from tasks.core.errors import ToolFailed
from tasks.core.models import Change, Finding, Health, Observation, Reading
from tasks.core.redaction import MASK, Redactor
from tasks.redacting import masked_logs, redacted_change, redacted_error, redacted_observation

SECRET = "hunter2-and-more"
REDACTOR = Redactor([SECRET])


def test_an_observation_keeps_its_health_and_symptoms() -> None:
    finding = Finding(symptom="down", health=Health.FAILED, summary=f"refused: {SECRET}")
    observation = Observation(
        resource="cache",
        kind=Kind.REDIS,
        health=Health.FAILED,
        findings=(finding,),
        reading=Reading(values={"answers": "refused", "error": SECRET, "count": 3}),
        summary=finding.summary,
        taken_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    redacted = redacted_observation(REDACTOR, observation)
    assert SECRET not in redacted.model_dump_json()
    assert (redacted.findings[0].symptom, redacted.summary) == ("down", f"refused: {MASK}")
    assert redacted.reading.values == {"answers": "refused", "error": MASK, "count": 3}


def test_a_change_and_an_error() -> None:
    change = redacted_change(REDACTOR, Change(before={"a": SECRET}, after={"a": 1}, undo={"mebibytes": 64.0}))
    assert change == Change(before={"a": MASK}, after={"a": 1}, undo={"mebibytes": 64.0})
    error = redacted_error(REDACTOR, ToolFailed(f"refused {SECRET}"))
    assert isinstance(error, ToolFailed)
    assert str(error) == f"refused {MASK}"
    assert redacted_error(REDACTOR, ToolFailed("refused")) is None


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What a handler of the root logger writes, with a filter of this test's own."""
    monkeypatch.setattr(redacting, "_FILTER", redacting.SecretsFilter())
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    yield stream
    redacting._FILTER.remove(REDACTOR)
    assert handler.filters == []
    logging.getLogger().removeHandler(handler)


def test_logs_of_children_arguments_and_tracebacks_are_masked(written: io.StringIO) -> None:
    logger = logging.getLogger("evenkeel-test.child")
    with masked_logs(REDACTOR):
        logger.error("read %s and %d", {"password-of": SECRET}, 3)
        logger.error("failed", exc_info=ToolFailed(SECRET))
        logger.error("token: abc stays, for the filter knows values alone")
    said = written.getvalue()
    assert SECRET not in said
    assert f"ToolFailed: {MASK}" in said
    assert "'password-of': '[masked]'" in said
    assert "token: abc stays" in said
    logger.error("afterwards %s", SECRET)
    assert SECRET in written.getvalue()


def test_two_inventories_mask_at_once_and_each_ends_alone(written: io.StringIO) -> None:
    logger = logging.getLogger("evenkeel-test")
    with masked_logs(Redactor(["another-secret"])):
        with masked_logs(REDACTOR):
            logger.error("%s another-secret", SECRET)
        logger.error("%s another-secret", "inner ended")
    assert written.getvalue() == f"{MASK} {MASK}\ninner ended {MASK}\n"


def test_threads_never_see_a_gap(written: io.StringIO) -> None:
    logger = logging.getLogger("evenkeel-test")
    done = threading.Event()

    def log() -> None:
        while not done.is_set():
            logger.error("%s", SECRET)

    with masked_logs(REDACTOR):
        thread = threading.Thread(target=log)
        thread.start()
        for number in range(200):
            with masked_logs(Redactor([f"other-secret-{number}"])):
                pass
        done.set()
        thread.join(5)
    assert SECRET not in written.getvalue()


def test_an_error_that_leaves_is_still_masked_for_whoever_logs_it(written: io.StringIO) -> None:
    logger = logging.getLogger("evenkeel-test")
    with pytest.raises(ToolFailed) as caught, masked_logs(REDACTOR):
        raise ToolFailed(SECRET)
    logger.error("failed", exc_info=caught.value)
    assert SECRET not in written.getvalue()
    assert MASK in written.getvalue()


def test_what_goes_to_prefects_api_is_masked(written: io.StringIO) -> None:
    with masked_logs(REDACTOR):
        for name in ("prefect.flow_runs", "prefect.task_runs"):
            handlers = [handler for handler in logging.getLogger(name).handlers if isinstance(handler, APILogHandler)]
            assert handlers
            assert all(redacting._FILTER in handler.filters for handler in handlers)
