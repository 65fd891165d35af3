"""What is wrong with an Nginx: the judgement of its readings."""

from collections.abc import Mapping

from pydantic import JsonValue

from blocks.schema import Resource
from tasks.core.models import Finding, Health, Reading

FORBIDDEN, SERVER_ERROR, BAD_GATEWAY, GATEWAY_TIMEOUT = 403, 500, 502, 504
OUT_OF_DATE = frozenset({"expired", "not yet valid"})


def judge(reading: Reading, resource: Resource) -> tuple[Finding, ...]:
    """What is wrong, from the values alone; a value that is missing is no finding."""
    values = reading.values
    if values.get("answers") == "refused":
        running = values.get("worker_processes")
        but = f", though {running} workers run" if running else ""
        return (_failed("down", f"no connection is accepted at {resource.address}{but}: {values.get('error')}"),)
    if values.get("answers") == "timeout":
        stopped = values.get("stopped_workers")
        because = f"; {stopped} of its workers are stopped by a signal" if stopped else ""
        return (_failed("unresponsive", f"Nginx takes connections and answers none{because}"),)
    high = _connections(values, resource)
    found = (_page(values, saturated=high is not None), high, _latency(values, resource), _configuration(values))
    return tuple(finding for finding in found if finding is not None)


def _page(values: Mapping[str, JsonValue], *, saturated: bool) -> Finding | None:
    if values.get("page_ok") is not False:
        return _further_page(values)
    status, error = values.get("page_status"), values.get("error")
    if values.get("page_error") == "timeout":
        return _failed("upstream_timeout", f"{error}, while Nginx itself answers: what is behind it hangs")
    if values.get("certificate_error") in OUT_OF_DATE:
        return _failed("certificate_expired", f"visitors refuse the certificate, which is {values.get('certificate_error')}")
    if status is None:
        return _failed("page_failing", f"{error}")
    if status == BAD_GATEWAY:
        return _failed("upstream_unreachable", f"the page answers 502: Nginx does not reach what is behind it{_undeclared(values)}")
    if status == GATEWAY_TIMEOUT:
        return _failed("upstream_timeout", "the page answers 504: what is behind Nginx does not answer in the time that Nginx gives it")
    if values.get("page_from") == "nginx" and status == FORBIDDEN:
        return _failed("page_forbidden", f"the page answers 403, made by Nginx itself{_modes(values)}")
    if values.get("page_from") == "nginx" or (saturated and status == SERVER_ERROR):
        return _failed("page_failing", f"the page answers {status}, made by Nginx itself")
    return _failed("upstream_failing", f"the page answers {status}, passed on from behind Nginx")


def _further_page(values: Mapping[str, JsonValue]) -> Finding | None:
    failing = values.get("pages_failing")
    if not isinstance(failing, dict) or not failing:
        return None
    forbidden = [path for path, answer in failing.items() if answer == FORBIDDEN]
    if forbidden:
        return _failed("page_forbidden", f"{forbidden[0]} answers 403{_modes(values)}")
    path, answer = next(iter(failing.items()))
    return _failed("page_failing", f"{path} answers {answer}")


def _modes(values: Mapping[str, JsonValue]) -> str:
    wrong = values.get("wrong_modes")
    return "".join(f"; {path} has mode {mode}" for path, mode in wrong.items()) if isinstance(wrong, dict) else ""


def _undeclared(values: Mapping[str, JsonValue]) -> str:
    found = values.get("undeclared_servers")
    if not isinstance(found, dict):
        return ""
    return "".join(f"; upstream {name} has servers that are not declared: {servers}" for name, servers in found.items())


def _configuration(values: Mapping[str, JsonValue]) -> Finding | None:
    error = values.get("config_error")
    if not error:
        return None
    summary = f"the configuration file can't be loaded, and the workers go on with what was loaded before: {error}"
    return Finding(symptom="config_invalid", health=Health.DEGRADED, summary=summary)


def _connections(values: Mapping[str, JsonValue], resource: Resource) -> Finding | None:
    threshold = resource.thresholds.connections_percent
    percent, busiest = _number(values.get("connections_percent")), _number(values.get("busiest_worker_percent"))
    figures = f"{values.get('connections_used')} of {values.get('connections_max')} connections"
    if percent is not None and percent >= threshold:
        summary = f"{figures} are in use, {percent:.0f} % (threshold {threshold:g} %)"
    elif busiest is not None and busiest >= threshold:
        summary = f"one worker uses {busiest:.0f} % of its connections (threshold {threshold:g} %); {figures} in all"
    else:
        return None
    return Finding(symptom="connections_high", health=Health.DEGRADED, summary=summary)


def _latency(values: Mapping[str, JsonValue], resource: Resource) -> Finding | None:
    seconds, threshold = _number(values.get("page_seconds")), resource.thresholds.latency_seconds
    if values.get("page_ok") is not True or seconds is None or seconds < threshold:
        return None
    return Finding(symptom="slow", health=Health.DEGRADED, summary=f"the page took {seconds:.2f} s (threshold {threshold:g} s)")


def _failed(symptom: str, summary: str) -> Finding:
    return Finding(symptom=symptom, health=Health.FAILED, summary=summary)


def _number(value: JsonValue) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
