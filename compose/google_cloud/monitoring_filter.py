"""The filters of Cloud Monitoring, as far as they choose series: terms on type and labels, joined by AND."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from compose.google_cloud.points import METRICS, RESOURCE_LABELS, Series

TERM = re.compile(r'([a-z_.]+)(?:\."([^"]+)")?\s*(!=|=|:)\s*(?:(starts_with|one_of)\(([^)]*)\)|"([^"]*)")', re.ASCII)


class FilterWrong(Exception):
    """The filter is not one that Monitoring would take."""


@dataclass(frozen=True)
class Term:
    """One condition."""

    field: str
    holds: Callable[[str], bool]


@dataclass(frozen=True)
class Filter:
    """A metric type, and what its series have to fulfil."""

    metric: str
    terms: tuple[Term, ...]

    def chooses(self, series: Series) -> bool:
        """Whether a series is asked for."""
        return all(term.holds(_value(series, term.field)) for term in self.terms)


def parse(text: str) -> Filter:
    """Read a filter. FilterWrong: it names no single metric type, or a label that the metric or its resource does not have."""
    metric, terms = None, []
    for part in re.split(r"\s+AND\s+", text.strip()):
        found = TERM.fullmatch(part.strip().strip("()").strip() if "(" not in part else part.strip())
        if found is None:
            raise FilterWrong(f"The filter {part!r} can't be read.")
        field, quoted_label, operator, function, arguments, value = found.groups()
        field = (f"{field}.{quoted_label}" if quoted_label else field).replace(".label.", ".labels.")
        if field == "metric.type" and operator == "=" and function is None:
            metric = value
            continue
        terms.append(Term(field, _condition(operator, function, arguments, value)))
    if metric is None or metric not in METRICS:
        raise FilterWrong(f"The filter must name one metric type that there is, not {metric!r}.")
    known = {"resource.type"}
    for one in METRICS[metric]:
        known |= {f"metric.labels.{name}" for name in one.labels}
        known |= {f"resource.labels.{name}" for name in RESOURCE_LABELS[one.resource]}
    for term in terms:
        if term.field not in known:
            raise FilterWrong(f"The metric {metric} has no {term.field}.")
    return Filter(metric, tuple(terms))


def _condition(operator: str, function: str | None, arguments: str | None, value: str | None) -> Callable[[str], bool]:
    if function is not None:
        given = re.findall(r'"([^"]*)"', arguments or "")
        if function == "one_of":
            return lambda actual: (actual in given) is (operator == "=")
        return lambda actual: actual.startswith(given[0]) is (operator == "=")
    wanted = value or ""
    if operator == ":":
        return lambda actual: wanted in actual
    return lambda actual: (actual == wanted) is (operator == "=")


def _value(series: Series, field: str) -> str:
    if field == "resource.type":
        return series.metric.resource
    part, _, label = field.partition(".labels.")
    labels = series.resource_labels if part == "resource" else series.metric_labels
    return labels.get(label, "")
