"""The part `shadow` of the section `gemini`: what it leaves out is as for the planner that acts."""

from typing import Any

import pytest
from pydantic import ValidationError

from blocks.errors import ConfigurationError
from blocks.gemini_settings import GeminiSettings
from blocks.inventory_file import parse_inventory

TEXT = "name: shop\nresources: [{name: api, kind: http, address: 'http://127.0.0.1:9/'}]\ngemini: "


def test_what_the_shadow_leaves_out_is_as_for_the_planner_that_acts() -> None:
    written = TEXT + "{api_key: '${KEY}', total_seconds: 60, dollars_per_day: 9, shadow: {model: gemini-2.5-pro, dollars_per_day: 1}}"
    found = parse_inventory(written, {"KEY": "a-key"}).gemini
    assert found is not None
    acts, watches = found.settings, found.settings.of_the_shadow
    assert (acts.model, acts.dollars_per_day, acts.acts) == ("gemini-2.5-flash", 9, True)
    assert (watches.model, watches.dollars_per_day, watches.total_seconds, watches.shadow) == ("gemini-2.5-pro", 1, 60, None)
    assert GeminiSettings.model_validate_json(acts.model_dump_json()) == acts


@pytest.mark.parametrize("shadow", [{}, {"shadow": {"planner": "runbook"}}])
def test_gemini_is_asked_for_something(shadow: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="acts: is false, so Gemini would never be asked"):
        GeminiSettings(acts=False, **shadow)


def test_a_field_that_is_none_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"gemini.shadow.modell: no such field; did you mean 'model'\?"):
        parse_inventory(TEXT + "{api_key: '${KEY}', shadow: {modell: x}}", {"KEY": "a-key"})
