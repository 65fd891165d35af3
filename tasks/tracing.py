"""Spans of our own inside of Prefect's, by OpenTelemetry's API: without an SDK in the process they cost next to nothing.

`opentelemetry-instrument python -m prefect.engine` puts one there, set up by the usual OTEL_ variables. Names and figures go into a span,
never arguments, texts of servers or messages of errors.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import Span, Status, StatusCode

Attribute = str | int | float | bool | tuple[str, ...]
_TRACER = trace.get_tracer("evenkeel")


@contextmanager
def span(name: str, attributes: Mapping[str, Attribute]) -> Iterator[Span]:
    """A span around what is done; what is raised there is named by its type alone."""
    with _TRACER.start_as_current_span(name, attributes=dict(attributes), record_exception=False, set_status_on_exception=False) as opened:
        try:
            yield opened
        except BaseException as error:
            opened.set_attribute("error.type", type(error).__name__)
            opened.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def describe(attributes: Mapping[str, Attribute]) -> None:
    """Attributes for the span that is open: in a flow that of its run."""
    trace.get_current_span().set_attributes(dict(attributes))
