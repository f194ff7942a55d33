# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is fetched ahead comes whole, in order and once, and nothing goes on behind a reader's back."""

from __future__ import annotations

import contextlib
import sys
import threading
from itertools import count, islice
from typing import Any, Callable, Iterator

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.ahead import (
    DEPTH,
    PATIENCE,
    ahead,
    beside,
)

LAST = 10 * PATIENCE


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def counting(until: int = LAST) -> Callable[[], int]:
    numbers = iter(range(1, until + 1))
    return lambda: next(numbers)


def never() -> None:
    raise AssertionError("nobody had to be woken")


def test_everything_comes_in_order() -> None:
    with contextlib.closing(ahead(counting(), lambda number: number == LAST, never)) as reading:
        assert list(islice(reading, LAST)) == list(range(1, LAST + 1))


def test_few_things_come_without_a_thread() -> None:
    before = threading.active_count()
    reading = ahead(counting(), lambda number: False, never)
    assert list(islice(reading, PATIENCE)) == list(range(1, PATIENCE + 1))
    assert threading.active_count() == before
    reading.close()


@pytest.mark.parametrize("at", [1, PATIENCE, PATIENCE + 1, PATIENCE + DEPTH + 5])
def test_an_error_comes_in_its_turn(at: int) -> None:
    numbers = count(1)

    def fetch() -> int:
        number = next(numbers)
        if number == at:
            raise OSError(105, "lost")
        return number

    reading = ahead(fetch, lambda number: False, never)
    assert list(islice(reading, at - 1)) == list(range(1, at))
    with pytest.raises(OSError, match="lost"):
        next(reading)


def test_a_reader_that_stops_early_stops_the_thread() -> None:
    numbers, woken = count(1), threading.Event()
    reading = ahead(lambda: next(numbers), lambda number: False, woken.set)
    assert list(islice(reading, PATIENCE + 2)) == list(range(1, PATIENCE + 3))
    reading.close()
    assert next(numbers) <= PATIENCE + 2 + DEPTH + 2, "no more is fetched than may lie ready"


def test_a_thread_that_waits_for_what_never_comes_is_woken() -> None:
    """What looked like the last thing was not recognised as that."""
    came = threading.Event()
    numbers = count(1)

    def fetch() -> Any:
        number = next(numbers)
        if number > PATIENCE + 1:
            assert came.wait(10)
        return number

    reading = ahead(fetch, lambda number: False, came.set)
    assert list(islice(reading, PATIENCE + 1)) == list(range(1, PATIENCE + 2))
    reading.close()
    assert came.is_set()


def test_there_may_be_more_behind_what_looked_like_the_last() -> None:
    with contextlib.closing(ahead(counting(), lambda number: number == PATIENCE + 3, never)) as reading:
        assert list(islice(reading, LAST)) == list(range(1, LAST + 1))


COUNT = 5 * PATIENCE


@pytest.mark.parametrize("number", [0, 1, PATIENCE, PATIENCE + 1, COUNT])
def test_work_beside_gives_everything_in_order(number: int) -> None:
    assert list(beside(lambda thing: -thing, range(number))) == [(thing, -thing) for thing in range(number)]


def test_the_next_things_are_fetched_while_the_work_goes_on() -> None:
    """The work on a thing waits for the next one to be fetched, which can be if that happens beside it."""
    fetched = [threading.Event() for _each in range(COUNT + 1)]
    fetched[COUNT].set()

    def things() -> Iterator[int]:
        for number in range(COUNT):
            fetched[number].set()
            yield number

    def work(number: int) -> bool:
        return number < PATIENCE or fetched[number + 1].wait(10)

    assert all(result for _thing, result in beside(work, things()))


def test_an_error_of_the_work_comes_in_its_turn() -> None:
    def work(number: int) -> int:
        if number == PATIENCE + 3:
            raise OSError(105, "lost")
        return number

    working = beside(work, count())
    assert len(list(islice(working, PATIENCE + 3))) == PATIENCE + 3
    with pytest.raises(OSError, match="lost"):
        next(working)


@pytest.mark.parametrize("at", [0, PATIENCE - 1, PATIENCE, PATIENCE + DEPTH + 3])
def test_an_error_of_the_things_comes_behind_all_results(at: int) -> None:
    def things() -> Iterator[int]:
        yield from range(at)
        raise ValueError("no thing")

    working = beside(lambda thing: thing, things())
    assert len(list(islice(working, at))) == at
    with pytest.raises(ValueError, match="no thing"):
        next(working)


def test_who_stops_early_begins_nothing_more() -> None:
    done: list[int] = []
    working = beside(done.append, count())
    list(islice(working, PATIENCE + 2))
    working.close()
    begun = len(done)
    assert begun <= PATIENCE + 2 + DEPTH + 1
    assert done == list(range(begun))


def test_the_interpreter_s_switch_interval_is_put_back() -> None:
    before = sys.getswitchinterval()
    list(beside(lambda thing: thing, range(COUNT)))
    assert sys.getswitchinterval() == before
