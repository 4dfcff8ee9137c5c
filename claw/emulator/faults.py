"""Every fault of the emulator as a switch, so that a test, a bench or a person on the page can turn it on.

Order of events: a handler reaches the place where DingTalk could fail and asks `take(name)`; it gets the value that the
switch has now. A switch that lets some uses pass counts them first, so that the n-th one can be hit. A switch with a
budget counts each use that it hits, and goes back to its default after the last one. Every change is told to the
listeners (the gateway arms its timers anew, the page shows the new position).

Which switches there are, with their defaults, limits and texts, is data: `faults.toml`.
"""

from __future__ import annotations

import dataclasses
import pathlib
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, Final

Value = bool | int | float | str | dict[str, int] | None

STATUSES: Final = (0, 302, 400, 401, 403, 404, 407, 408, 409, 413, 422, 429, 500, 502, 503, 504)
"""HTTP statuses that a switch takes; 0 is off."""
CHOICES: Final = {"status": STATUSES, "error": STATUSES[1:]}
"""What a word stands for where a switch of `faults.toml` has one in place of its choices."""


class FaultError(ValueError):
    """A switch that does not exist, or a value that it cannot take."""


@dataclasses.dataclass(frozen=True)
class FaultSwitch:
    name: str
    group: str
    default: Any
    zh: str
    en: str
    nullable: bool = False
    choices: tuple[Any, ...] = ()
    low: float | None = 0
    high: float | None = None

    @property
    def type(self) -> str:
        return type(self.default).__name__

    def check(self, value: Value) -> Value:
        """Return the value as the switch holds it. Raises FaultError."""
        if value is None and self.nullable:
            return None
        # JSON and people write 5 for 5.0.
        if self.type == "float" and type(value) is int:
            value = float(value)
        # By the very type: True is an int to Python, but no number of repeats.
        if type(value) is not type(self.default):
            raise FaultError(f"{self.name}: expected {self.type}, got {type(value).__name__}")
        if self.choices and value not in self.choices:
            raise FaultError(f"{self.name}: {value!r} is not one of {list(self.choices)}")
        if isinstance(value, int | float) and not self._is_in_range(value):
            raise FaultError(f"{self.name}: {value!r} is out of range")
        return value

    def _is_in_range(self, value: float) -> bool:
        # Written so that NaN, which compares with nothing, is out of every range.
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


def _read_switches() -> dict[str, FaultSwitch]:
    # Read at import, so that a slip in the data fails at once and not with the first fault.
    text = pathlib.Path(__file__).with_name("faults.toml").read_text(encoding="utf-8")
    switches = {}
    for group, entries in tomllib.loads(text).items():
        for name, entry in entries.items():
            choices = entry.pop("choices", ())
            # TOML has no null to say that there is no lower limit.
            low = None if entry.pop("no_low", False) else entry.pop("low", 0)
            choices = CHOICES[choices] if isinstance(choices, str) else tuple(choices)
            switches[name] = FaultSwitch(name, group, choices=choices, low=low, **entry)
    return switches


SWITCHES: Final = _read_switches()
COUNTS: Final = ("fault_budget", "fault_pass")
"""Fields beside the switches: numbers of uses by switch."""
DEFAULTS: Final[dict[str, Any]] = {name: switch.default for name, switch in SWITCHES.items()}


class Faults:
    """The switches as attributes. Setting one checks it: a misspelt name is an error, not a fault that is off."""

    fault_budget: dict[str, int]
    """Uses left by switch; after the last one the switch goes back to its default."""
    fault_pass: dict[str, int]
    """Uses by switch that are let pass before it acts."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[str], None]] = []
        self._values: dict[str, Any] = DEFAULTS | {name: {} for name in COUNTS}

    def __getattr__(self, name: str) -> Any:
        # Called only for what is no ordinary attribute, that is, for the switches.
        if name.startswith("_") or name not in self._values:
            raise AttributeError(f"no fault {name!r}")
        return self._values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self._set(name, _check(name, value))

    def _set(self, name: str, value: Value) -> None:
        self._values[name] = value
        # After the change, so that a listener that looks at the switches sees them as they are now.
        for listener in self._listeners:
            listener(name)

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call `listener(name)` after every change of a switch."""
        self._listeners.append(listener)

    def take(self, name: str) -> Any:
        """Read the switch's value, counting one use of its budget if it is on."""
        value = self._values[name]
        if value == DEFAULTS[name]:
            return value
        if passing := self.fault_pass.pop(name, 0):
            if passing > 1:
                self.fault_pass[name] = passing - 1
            return DEFAULTS[name]
        left = self.fault_budget.get(name)
        if left is None:
            return value
        if left > 1:
            self.fault_budget[name] = left - 1
            return value
        # The last use switches it off before the fault acts: whoever is told of the fault sees the switch at rest.
        self.fault_budget.pop(name)
        self._set(name, DEFAULTS[name])
        # A budget of nothing: the switch was never meant to act.
        return value if left == 1 else DEFAULTS[name]

    def update(self, values: Mapping[str, Value]) -> None:
        """Set the given switches, all or none. Raises FaultError naming the first that is wrong."""
        # All are checked before the first is set: half an update would be a fault that nobody asked for.
        checked = {name: _check(name, value) for name, value in values.items()}
        for name, value in checked.items():
            self._set(name, value)

    def reset(self) -> None:
        """Put every switch back to its default."""
        for name in COUNTS:
            self._set(name, {})
        # Only those that are not at rest: listeners arm timers anew, and must not be told of what did not change.
        for name in self.active():
            self._set(name, DEFAULTS[name])

    def to_dict(self) -> dict[str, Any]:
        return self._values | {name: dict(self._values[name]) for name in COUNTS}

    def active(self) -> dict[str, Any]:
        """List the switches that are not at their default."""
        return {name: self._values[name] for name, default in DEFAULTS.items() if self._values[name] != default}

    @staticmethod
    def describe() -> list[dict[str, Any]]:
        """Describe the switches as the page draws them."""
        shown = ("name", "type", "default", "group", "choices", "zh", "en")
        return [{key: getattr(switch, key) for key in shown} for switch in SWITCHES.values()]


def _check(name: str, value: Value) -> Value:
    if name in COUNTS:
        return _check_counts(name, value)
    if name not in SWITCHES:
        raise FaultError(f"unknown fault {name!r}; known: {', '.join(SWITCHES)}")
    return SWITCHES[name].check(value)


def _check_counts(field: str, value: Value) -> dict[str, int]:
    if not isinstance(value, dict):
        raise FaultError(f"{field}: expected an object of fault name to number of uses")
    for name, uses in value.items():
        if name not in SWITCHES:
            raise FaultError(f"{field}: unknown fault {name!r}")
        if type(uses) is not int or uses < 1:
            raise FaultError(f"{field}: {name}: expected a number of uses of at least 1")
    return dict(value)
