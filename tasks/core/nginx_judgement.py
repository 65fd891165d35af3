"""What is wrong with an Nginx: the judgement of its readings."""

from blocks.schema import Resource
from tasks.core.findings import degraded, failed
from tasks.core.models import Finding, Reading
from tasks.core.values import Values, number, part

FORBIDDEN, SERVER_ERROR, BAD_GATEWAY, GATEWAY_TIMEOUT = 403, 500, 502, 504
OUT_OF_DATE = frozenset({"expired", "not yet valid"})


def judge(reading: Reading, resource: Resource) -> tuple[Finding, ...]:
    """What is wrong, from the values alone; a value that is missing is no finding."""
    values = reading.values
    high = _connections(values, resource)
    if values.get("answers") == "refused":
        running = values.get("worker_processes")
        if running and high is not None:
            # Near their limit workers drop connections that they have accepted and not yet read.
            return (failed("page_failing", f"a new connection is dropped by a running worker: {values.get('error')}"), high)
        but = f", though {running} workers run" if running else ""
        return (failed("down", f"no connection is accepted at {resource.address}{but}: {values.get('error')}"),)
    if values.get("answers") == "timeout":
        stopped = values.get("stopped_workers")
        because = f"; {stopped} of its workers are stopped by a signal" if stopped else ""
        return (failed("unresponsive", f"Nginx takes connections and answers none{because}"),)
    found = (_page(values, saturated=high is not None), high, _latency(values, resource), _configuration(values))
    return tuple(finding for finding in found if finding is not None)


def _page(values: Values, *, saturated: bool) -> Finding | None:
    if values.get("page_ok") is not False:
        return _further_page(values)
    status, error = values.get("page_status"), values.get("error")
    if values.get("page_error") == "timeout":
        return failed("upstream_timeout", f"{error}, while Nginx itself answers: what is behind it hangs")
    if values.get("certificate_error") in OUT_OF_DATE:
        return failed("certificate_expired", f"visitors refuse the certificate, which is {values.get('certificate_error')}")
    if status is None:
        return failed("page_failing", f"{error}")
    if status == BAD_GATEWAY:
        return failed("upstream_unreachable", f"the page answers 502: Nginx does not reach what is behind it{_undeclared(values)}")
    if status == GATEWAY_TIMEOUT:
        return failed("upstream_timeout", "the page answers 504: what is behind Nginx does not answer in the time that Nginx gives it")
    if values.get("page_from") == "nginx" and status == FORBIDDEN:
        return failed("page_forbidden", f"the page answers 403, made by Nginx itself{_modes(values)}")
    if values.get("page_from") == "nginx" or (saturated and status == SERVER_ERROR):
        return failed("page_failing", f"the page answers {status}, made by Nginx itself")
    return failed("upstream_failing", f"the page answers {status}, passed on from behind Nginx")


def _further_page(values: Values) -> Finding | None:
    failing = part(values, "pages_failing")
    if not failing:
        return None
    forbidden = [path for path, answer in failing.items() if answer == FORBIDDEN]
    if forbidden:
        return failed("page_forbidden", f"{forbidden[0]} answers 403{_modes(values)}")
    path, answer = next(iter(failing.items()))
    return failed("page_failing", f"{path} answers {answer}")


def _modes(values: Values) -> str:
    return "".join(f"; {path} has mode {mode}" for path, mode in part(values, "wrong_modes").items())


def _undeclared(values: Values) -> str:
    found = part(values, "undeclared_servers")
    return "".join(f"; upstream {name} has servers that are not declared: {servers}" for name, servers in found.items())


def _configuration(values: Values) -> Finding | None:
    error = values.get("config_error")
    if not error:
        return None
    summary = f"the configuration file can't be loaded, and the workers go on with what was loaded before: {error}"
    return degraded("config_invalid", summary)


def _connections(values: Values, resource: Resource) -> Finding | None:
    threshold = resource.thresholds.connections_percent
    percent, busiest = number(values, "connections_percent"), number(values, "busiest_worker_percent")
    figures = f"{values.get('connections_used')} of {values.get('connections_max')} connections"
    if percent is not None and percent >= threshold:
        summary = f"{figures} are in use, {percent:.0f} % (threshold {threshold:g} %)"
    elif busiest is not None and busiest >= threshold:
        summary = f"one worker uses {busiest:.0f} % of its connections (threshold {threshold:g} %); {figures} in all"
    else:
        return None
    return degraded("connections_high", summary)


def _latency(values: Values, resource: Resource) -> Finding | None:
    seconds, threshold = number(values, "page_seconds"), resource.thresholds.latency_seconds
    if values.get("page_ok") is not True or seconds is None or seconds < threshold:
        return None
    return degraded("slow", f"the page took {seconds:.2f} s (threshold {threshold:g} s)")
