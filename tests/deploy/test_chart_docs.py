"""The chart's tables are made from claw/config/settings.py and from the schema, and cannot go stale."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import helm_python
import pytest
import yaml

from claw.config import settings
from claw.config.variables import Variable
from helm import claw_docs
from tests.deploy.chart import CHART

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
VARIABLES = {each.name: each for _, each in (*claw_docs.config(), *claw_docs.secrets())}
SECRETS = {each.name for _, each in claw_docs.secrets()}
GENERATED = SCHEMA["properties"]["config"]["properties"] | SCHEMA["properties"]["secret"]["properties"]


def validate(name: str, value: Any) -> None:
    """Have Helm look at one variable's value. Raises HelmValuesError."""
    under = "secret" if name in SECRETS else "config"
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema({under: {name: value}})


def test_files_are_not_stale() -> None:
    """values.yaml, its schema and the chart's README are what claw/config/settings.py makes of them (`make docs`)."""
    for path, text in claw_docs.made().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: run `make docs`"


def test_every_variable_has_its_place() -> None:
    """Each variable is under config or under secret, or follows from a value of the chart that exists."""
    properties = SCHEMA["properties"]
    assert set(GENERATED) | set(claw_docs.MANAGED) == {each.name for _, each in settings.variables()}
    assert set(properties["secret"]["properties"]) == SECRETS
    assert {each.name for _, each in settings.variables() if each.secret} | {"CLAW_STORE_URL"} == SECRETS
    assert set(claw_docs.MANAGED.values()) <= set(properties)
    assert set(properties["existingSecret"]["properties"]["keys"]["properties"]) == {
        name for name, each in VARIABLES.items() if each.from_file
    }


@pytest.mark.parametrize("name", GENERATED)
def test_schema_admits_what_claw_takes(name: str) -> None:
    """A variable's default passes its schema, and so does nothing at all."""
    for value in ("", None, VARIABLES[name].default_text):
        if value and _refused(VARIABLES[name], value):
            continue  # A default that is described instead of written.
        validate(name, value)


def _refused(info: Variable, value: str) -> bool:
    try:
        info.parser.parse(value)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("CLAW_TURN_TIMEOUT", [1, 3600, "300", "5m", "0.5 h", ".01d"], [0, 3601, "5 minutes", True]),
        ("CLAW_STREAM_ROTATE", [0, "0", 86400], [-1, 86401]),
        ("CLAW_STREAM_HEARTBEAT", [0.1, "500ms"], [0, 61]),
        ("CLAW_MAX_CONCURRENCY", [1, "32", 1000], [0, 1001, 1.5, "many"]),
        ("CLAW_GROUP_POLICY", ["open", "allowlist", "disabled"], ["owner", True]),
        ("CLAW_LOG_FORMAT", ["json", "text"], ["xml"]),
        ("CLAW_LANG", ["zh", "en"], ["de"]),
        ("CLAW_OWNER", ["manager4220,u-2"], [4220]),
        ("CLAW_TIMEZONE", ["Asia/Shanghai", "Etc/GMT+8"], ["Asia Shanghai"]),
        ("OPENAI_BASE_URL", ["http://gateway:18789/v1"], ["gateway:18789"]),
        ("DINGTALK_CLIENT_ID", ["dingabc"], ["ding abc", 5]),
        ("CLAW_STORE_URL", ["redis://:pw@redis:6379/0", "rediss://redis:6380"], ["redis:6379", "redis://a b", 5]),
    ],
)
def test_schema_has_the_parsers_bounds(name: str, good: list[Any], bad: list[Any]) -> None:
    """The schema of a variable is read off its parser: both take the good values and refuse the bad ones."""
    for value in good:
        validate(name, value)
        VARIABLES[name].parser.parse(str(value))
    for value in bad:
        with pytest.raises(helm_python.HelmValuesError):
            validate(name, value)


def _leaves(schema: dict[str, Any], values: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any, Any]]:
    for name, each in schema["properties"].items():
        if name == "global":
            continue
        if "properties" in each and "default" not in each:
            yield from _leaves(each, values[name], f"{path}{name}.")
        else:
            yield f"{path}{name}", each.get("default"), values[name]


def test_schema_has_the_values_defaults() -> None:
    """The table in README is made from the schema: its defaults are those of values.yaml, and every value is there."""
    leaves = list(_leaves(SCHEMA, VALUES))
    assert [(path, default) for path, default, _ in leaves] == [(path, value) for path, _, value in leaves]


def test_no_value_is_open() -> None:
    """Each object of the schema says what may be in it, and each value has a description."""

    def walk(schema: dict[str, Any], path: str) -> None:
        assert path == "" or "description" in schema, path
        if "properties" in schema:
            assert schema["additionalProperties"] is False, path
            for name, each in schema["properties"].items():
                if path != ".existingSecret.keys":
                    walk(each, f"{path}.{name}")

    walk(SCHEMA, "")


def test_values_have_no_key_beyond_the_schema() -> None:
    """values.yaml holds no key that the schema does not know."""

    def walk(schema: dict[str, Any], values: dict[str, Any], path: str) -> None:
        for name, value in values.items():
            assert name in schema["properties"], f"{path}.{name}"
            nested = schema["properties"][name]
            if "properties" in nested and "default" not in nested:
                walk(nested, value, f"{path}.{name}")

    walk(SCHEMA, VALUES, "")


def test_region_must_be_there_once() -> None:
    """A file without its marks is refused, so that a table cannot be lost in silence."""
    with pytest.raises(ValueError, match="must stand in the text once"):
        claw_docs.values("config: {}\n")
