"""The part of the catalogue that the gate tries covers what it says."""

import inspect

from blocks.schema import Kind
from tasks.catalog import load_catalog
from tasks.core.declare import Ending
from tasks.scenarios import NOT_INJECTED
from tests.scenarios.gate import IN_THE_GATE

CATALOG = load_catalog()
SERVERS, JUDGEMENT = range(1, 41), range(41, 56)


def test_every_line_of_the_catalogue_of_faults_is_injected_or_says_why_not() -> None:
    covered = {number for one in CATALOG.scenarios.values() for number in one.catalogue}
    assert not covered & set(NOT_INJECTED)
    assert covered | set(NOT_INJECTED) == set(SERVERS) | set(JUDGEMENT)


def test_the_catalogue_is_wide() -> None:
    found = list(CATALOG.scenarios.values())
    assert len(found) >= 40
    assert sum(not one.symptoms for one in found) >= 5
    assert sum(bool(set(one.catalogue) & set(range(46, 51))) for one in found) >= 5
    assert sum(bool(set(one.catalogue) & set(range(51, 56))) for one in found) >= 5
    assert sum(one.expects is Ending.ESCALATED for one in found) >= 3


def test_the_gate_tries_at_least_a_quarter_of_it_each_service_and_each_way_to_end() -> None:
    tried = {name for names in IN_THE_GATE.values() for name in names}
    assert tried <= set(CATALOG.scenarios)
    assert 4 * len(tried) >= len(CATALOG.scenarios)
    assert {CATALOG.scenarios[name].resource_kind for name in tried} == set(Kind)
    assert {CATALOG.scenarios[name].expects for name in tried} == {Ending.HEALED, Ending.ESCALATED, Ending.LEFT_ALONE}


def test_nothing_of_a_scenario_is_known_to_tools_and_runbooks() -> None:
    functions = [*(one.function for one in CATALOG.tools.values()), *(one.function for one in CATALOG.runbooks.values())]
    modules = {inspect.getmodule(function) for function in functions}
    sources = [inspect.getsource(module) for module in modules if module is not None]
    assert not [one.name for one in CATALOG.scenarios.values() if any(one.name in source for source in sources)]
