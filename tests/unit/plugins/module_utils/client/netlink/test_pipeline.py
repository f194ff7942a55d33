# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that the prefetch thread delivers each item once and in order, and that no thread remains after the reader."""

from __future__ import annotations

import contextlib
import sys
import threading
from itertools import count, islice
from typing import Any, Callable, Iterator

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.pipeline import (
    QUEUE_DEPTH,
    THREAD_AFTER,
    overlap,
    prefetch,
)

pytestmark = pytest.mark.portability

LAST = 10 * THREAD_AFTER


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def counting(until: int = LAST) -> Callable[[], int]:
    numbers = iter(range(1, until + 1))
    return lambda: next(numbers)


def never() -> None:
    raise AssertionError("the thread must not need a wake-up")


def test_items_are_delivered_in_order() -> None:
    with contextlib.closing(prefetch(counting(), lambda number: number == LAST, never)) as reading:
        assert list(islice(reading, LAST)) == list(range(1, LAST + 1))


@pytest.mark.parametrize("at", [1, THREAD_AFTER, THREAD_AFTER + 1, THREAD_AFTER + QUEUE_DEPTH + 5])
def test_error_is_raised_at_its_position(at: int) -> None:
    numbers = count(1)

    def fetch() -> int:
        number = next(numbers)
        if number == at:
            raise OSError(105, "lost")
        return number

    reading = prefetch(fetch, lambda number: False, never)
    assert list(islice(reading, at - 1)) == list(range(1, at))
    with pytest.raises(OSError, match="lost"):
        next(reading)


def test_a_reader_that_stops_early_stops_the_thread() -> None:
    numbers, woken = count(1), threading.Event()
    reading = prefetch(lambda: next(numbers), lambda number: False, woken.set)
    assert list(islice(reading, THREAD_AFTER + 2)) == list(range(1, THREAD_AFTER + 3))
    reading.close()
    assert next(numbers) <= THREAD_AFTER + 2 + QUEUE_DEPTH + 2, "the thread fetches no more than the queue can hold"


def test_thread_that_waits_for_another_item_is_woken() -> None:
    """The thread does not recognise the last item as such and waits for another one."""
    wake_up = threading.Event()
    numbers = count(1)

    def fetch() -> Any:
        number = next(numbers)
        if number > THREAD_AFTER + 1:
            assert wake_up.wait(120)
        return number

    reading = prefetch(fetch, lambda number: False, wake_up.set)
    assert list(islice(reading, THREAD_AFTER + 1)) == list(range(1, THREAD_AFTER + 2))
    reading.close()
    assert wake_up.is_set()


def test_items_after_an_apparent_last_item_are_delivered() -> None:
    with contextlib.closing(prefetch(counting(), lambda number: number == THREAD_AFTER + 3, never)) as reading:
        assert list(islice(reading, LAST)) == list(range(1, LAST + 1))


COUNT = 5 * THREAD_AFTER


@pytest.mark.parametrize("number", [0, 1, THREAD_AFTER, THREAD_AFTER + 1, COUNT])
def test_overlap_delivers_all_results_in_order(number: int) -> None:
    assert list(overlap(lambda thing: -thing, range(number))) == [(thing, -thing) for thing in range(number)]


def test_next_items_are_fetched_during_the_work() -> None:
    """The work on an item waits until the next item is fetched, which requires a second thread."""
    fetched = [threading.Event() for _each in range(COUNT + 1)]
    fetched[COUNT].set()

    def things() -> Iterator[int]:
        for number in range(COUNT):
            fetched[number].set()
            yield number

    def work(number: int) -> bool:
        return number < THREAD_AFTER or fetched[number + 1].wait(120)

    assert all(result for _thing, result in overlap(work, things()))


def test_error_of_the_work_is_raised_at_its_position() -> None:
    def work(number: int) -> int:
        if number == THREAD_AFTER + 3:
            raise OSError(105, "lost")
        return number

    working = overlap(work, count())
    assert len(list(islice(working, THREAD_AFTER + 3))) == THREAD_AFTER + 3
    with pytest.raises(OSError, match="lost"):
        next(working)


@pytest.mark.parametrize("at", [0, THREAD_AFTER - 1, THREAD_AFTER, THREAD_AFTER + QUEUE_DEPTH + 3])
def test_error_of_the_items_is_raised_after_all_results(at: int) -> None:
    def things() -> Iterator[int]:
        yield from range(at)
        raise ValueError("no thing")

    working = overlap(lambda thing: thing, things())
    assert len(list(islice(working, at))) == at
    with pytest.raises(ValueError, match="no thing"):
        next(working)


def test_closed_iterator_begins_no_further_work() -> None:
    done: list[int] = []
    working = overlap(done.append, count())
    list(islice(working, THREAD_AFTER + 2))
    working.close()
    begun = len(done)
    assert begun <= THREAD_AFTER + 2 + QUEUE_DEPTH + 1
    assert done == list(range(begun))


def test_switch_interval_is_restored() -> None:
    before = sys.getswitchinterval()
    list(overlap(lambda thing: thing, range(COUNT)))
    assert sys.getswitchinterval() == before


def test_switch_interval_is_restored_after_any_order_of_ends() -> None:
    before = sys.getswitchinterval()
    for order in ((0, 1), (1, 0)):
        both = [overlap(lambda thing: thing, count()) for _each in order]
        for working in both:
            list(islice(working, THREAD_AFTER + 1))
        assert sys.getswitchinterval() < before
        for place in order:
            both[place].close()
        assert sys.getswitchinterval() == before


def test_switch_interval_set_during_the_work_is_kept() -> None:
    before = sys.getswitchinterval()
    working = overlap(lambda thing: thing, count())
    list(islice(working, THREAD_AFTER + 1))
    try:
        sys.setswitchinterval(0.02)
        working.close()
        assert sys.getswitchinterval() == pytest.approx(0.02)
    finally:
        sys.setswitchinterval(before)


def test_work_is_done_without_a_thread_if_none_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """This happens if the limit of tasks is reached."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with contextlib.closing(prefetch(counting(), lambda number: number == LAST, never)) as reading:
        assert list(islice(reading, LAST)) == list(range(1, LAST + 1))
    assert list(overlap(lambda thing: -thing, range(COUNT))) == [(thing, -thing) for thing in range(COUNT)]
