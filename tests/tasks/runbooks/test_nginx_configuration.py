"""What the runbooks propose for an Nginx that is configured wrongly, and where they keep silent."""

from typing import Any

import pytest

from blocks.nginx_declared import CertificateFiles, NginxDeclared
from blocks.schema import Kind
from tasks.catalog import load_catalog
from tasks.core.models import Context, Health, Observation
from tests.incidents import NOW, context_of

REVERT: tuple[str, dict[str, Any]] = ("nginx_revert_config", {})
RELOAD: tuple[str, dict[str, Any]] = ("nginx_reload", {})
CORRECT: tuple[str, dict[str, Any]] = ("nginx_set_upstream", {"upstream": "shop", "server": "127.0.0.1:8000", "instead_of": "127.0.0.1:9"})


def with_values(incident: str, dependencies: tuple[Health, ...] = (), **values: Any) -> Context:
    context = context_of(incident)
    reading = context.observation.reading.model_copy(update={"values": {**context.observation.reading.values, **values}})
    behind = tuple(Observation(resource="shop-app", kind=Kind.HTTP, health=health, taken_at=NOW) for health in dependencies)
    observation = context.observation.model_copy(update={"reading": reading})
    return context.model_copy(update={"observation": observation, "dependencies": behind})


def proposed(context: Context) -> list[tuple[str, dict[str, Any]]]:
    symptoms = tuple(finding.symptom for finding in context.observation.findings)
    books = load_catalog().runbooks_for(Kind.NGINX, symptoms)
    remedies = [remedy for book in books for remedy in book.function(context)]
    assert all(remedy.evidence and remedy.expected for remedy in remedies)
    return [(step.tool, dict(step.args)) for remedy in remedies for step in remedy.steps]


@pytest.mark.parametrize(
    ("incident", "values", "expected"),
    [
        ("web: config_invalid", {}, [REVERT]),
        ("web: config_invalid", {"config_known_good": None}, []),
        ("web: upstream_unreachable at a wrong port", {}, [CORRECT]),
        ("web: upstream_unreachable at a wrong port", {"unused_servers": {}}, []),
        ("web: upstream_unreachable at a wrong port", {"config_known_good": False}, [CORRECT, REVERT]),
        ("web: upstream_unreachable by what is loaded", {}, [RELOAD]),
        ("web: upstream_unreachable by what is loaded", {"config_known_good": False}, [REVERT, RELOAD]),
        ("web: upstream_unreachable by what is loaded", {"config_known_good": False, "config_error": "no semicolon"}, [REVERT]),
        ("web: upstream_unreachable", {}, []),
        ("web: upstream_unreachable", {"dependencies": (Health.HEALTHY,)}, [RELOAD]),
        ("web: upstream_unreachable", {"dependencies": (Health.HEALTHY,), "config_loaded": None}, []),
        ("web: upstream_unreachable", {"dependencies": (Health.FAILED,), "config_known_good": False}, []),
        ("web: upstream_timeout", {}, []),
        ("web: upstream_timeout after a change", {}, [REVERT]),
        ("web: upstream_timeout after a change", {"dependencies": (Health.DEGRADED,)}, []),
        ("web: page_failing", {"config_known_good": False}, [REVERT]),
        ("web: page_failing", {}, []),
        ("web: page_forbidden", {}, [("nginx_restore_mode", {"path": "/srv/shop/static"})]),
        ("web: page_forbidden", {"wrong_modes": {"/srv/shop/static": "missing"}}, []),
        ("web: page_forbidden", {"wrong_modes": {}, "config_known_good": False}, [REVERT]),
        ("web: page_forbidden", {"wrong_modes": {}}, []),
        ("web: certificate_expired", {}, [("nginx_install_certificate", {})]),
    ],
)
def test_what_is_proposed(incident: str, values: dict[str, Any], expected: list[tuple[str, dict[str, Any]]]) -> None:
    assert proposed(with_values(incident, **values)) == expected


@pytest.mark.parametrize("certificate", [None, CertificateFiles(certificate="/srv/a.crt", key="/srv/a.key")])
def test_a_certificate_is_installed_only_where_one_is_declared(certificate: CertificateFiles | None) -> None:
    context = context_of("web: certificate_expired")
    resource = context.resource.model_copy(update={"nginx": NginxDeclared(certificate=certificate)})
    assert bool(proposed(context.model_copy(update={"resource": resource}))) is (certificate is not None)
