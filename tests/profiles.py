# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hypothesis profiles, and a decorator that scales the number of examples with the profile.

`pytest --hypothesis-profile=NAME` selects one:

- `smoke`: a tenth of the examples, the same ones in every run.
- `default`: half of the examples, different ones in every run.
- `thorough`: all examples, the same ones in every run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import HealthCheck, settings

#: Whether all supported versions and sizes are tested.
STRICT = os.environ.get("STRICT", "") not in ("", "0")
#: Percentage of the examples that each profile runs.
PROFILES = {"smoke": 10, "default": 50, "thorough": 100}


def register() -> None:
    """Register the profiles with Hypothesis and load `default`."""
    for name, percentage in PROFILES.items():
        settings.register_profile(
            name,
            max_examples=percentage,
            # Other sessions use the cores too, so the duration of an example has no meaning
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            derandomize=name != "default",
            print_blob=True,
        )
    settings.load_profile("default")


def examples(number: int, at_least: int = 5, **others: Any) -> Callable[[Any], Any]:
    """Run a property test with this number of examples under `thorough`, and with the profile's share of it otherwise.

    :param number: Examples under `thorough`; without the decorator it is 100.
    :param at_least: Minimum number of examples in every profile.
    :param others: Other settings of Hypothesis, for example `suppress_health_check`.
    """
    return settings(max_examples=share(number, at_least), **others)


def share(number: int, at_least: int = 1) -> int:
    """Return the profile's share of a number: all of it under `thorough`.

    Call it when tests are defined or run, because the result depends on the profile that is loaded then.
    """
    percentage = settings.default.max_examples  # type: ignore[union-attr]
    return max(at_least, number * percentage // 100)


def spread(things: Sequence[Any], start: int = 0) -> Sequence[Any]:
    """Return the profile's share of a sequence, at even distances: all items under `thorough`.

    :param start: Runs with consecutive numbers together cover all items.
    """
    step = len(things) // share(len(things))
    return things[start % step :: step]
