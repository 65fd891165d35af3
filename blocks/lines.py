"""YAML as plain data, with the line on which each value stands."""

import re
from typing import Any

import yaml

from blocks.errors import ConfigurationError

Location = tuple[str | int, ...]
DEEPEST = 20


def read_yaml(text: str) -> tuple[Any, dict[Location, int]]:
    """Data, and the line of every value by its location.

    ConfigurationError names the line of what is no YAML and of every key that stands twice; YAML itself would keep the last.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise ConfigurationError("the file is empty; start from blocks/inventory.example.yaml")
        problems: list[str] = []
        _find_doubles(node, problems)
        if problems:
            raise ConfigurationError(problems)
        data = loader.construct_document(node)  # this also resolves the merge keys within the nodes
        lines: dict[Location, int] = {}
        _find_lines(node, (), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f"line {mark.line + 1}: "
        written = "" if mark is None else "".join(text.splitlines()[mark.line : mark.line + 1])
        hint = '; between braces, write "${NAME}" in quotes' if "${" in written else ""
        raise ConfigurationError(f"{place}no YAML: {_without_quotes(error.problem or 'it can not be read')}{hint}") from None
    except (yaml.YAMLError, ValueError):
        raise ConfigurationError("no YAML: it holds a character or a date that does not exist") from None
    finally:
        loader.dispose()
    return data, lines


def _find_doubles(node: yaml.Node, problems: list[str], depth: int = 0) -> None:
    _check_depth(node, depth)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                problems.append(f"line {line}: a field's name must be a word")
                continue
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                problems.append(f"line {line}: the field {key.value!r} stands twice, first on line {seen[key.value]}; remove one")
            seen.setdefault(key.value, line)
            _find_doubles(value, problems, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _find_doubles(value, problems, depth + 1)


def _find_lines(node: yaml.Node, location: Location, lines: dict[Location, int]) -> None:
    lines.setdefault(location, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[*location, str(key.value)] = key.start_mark.line + 1
            _find_lines(value, (*location, str(key.value)), lines)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            _find_lines(value, (*location, position), lines)


def _check_depth(node: yaml.Node, depth: int) -> None:
    if depth > DEEPEST:
        raise ConfigurationError(f"line {node.start_mark.line + 1}: nested more than {DEEPEST} deep; an alias may contain itself")


def _without_quotes(problem: str) -> str:
    """The words of the parser without what it quotes from the file: that may be a password."""
    return re.sub(r"'[^'\s]{2,}'", "'...'", problem)
