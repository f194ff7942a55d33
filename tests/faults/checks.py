# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the state before and after a fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from .injection import Injector
from .scenarios import Done, Stage, State

#: Values that depend on the time when an entry was created.
FLEETING = ("id",)


class Course(NamedTuple):
    """A task without faults: the states before and after it, its result and its calls."""

    start: State
    goal: State
    done: Done


def without_fault(stage: Stage) -> Course:
    """Run the task of a stage."""
    stage.reset()
    start = stage.state()
    done = stage.run(Injector())
    return Course(start, stage.state(), done)


def unwanted(start: State, now: State, goal: State) -> Iterator[str]:
    """Yield values that are neither in the start state nor in the goal state, and names that are lost."""
    for name in {**start, **now, **goal}:
        before, there, after = (state.get(name) for state in (start, now, goal))
        if there is None:
            if before is not None and after is not None:
                yield f"{name} is lost"
            continue
        if before is None and after is None:
            yield f"{name} was not declared"
        for key, value in there.items():
            if key not in FLEETING and value not in [state.get(key) for state in (before, after) if state is not None]:
                yield f"{name}: {key} is {value}"
        stays = before is not None and after is not None and lasting({"": before}) == lasting({"": after})
        if stays and there.get("id") != before.get("id"):
            yield f"{name} was created again"


def changed_things(start: State, now: State) -> Counter[str]:
    """Return the number of things that were created, updated and deleted."""
    before, after = lasting(start), lasting(now)
    return Counter(
        "created" if name not in before else "deleted" if name not in after else "updated"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    )


def lasting(state: State) -> State:
    """Return a state without the values that differ from run to run."""
    return {
        name: {key: value for key, value in values.items() if key not in FLEETING} for name, values in state.items()
    }
