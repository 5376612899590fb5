"""The lane: items that wait become batches, and each caller gets its own result or a reason why there is none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest

from routelearn.service.lane import Lane, LaneError


class Doubling:
    """Doubles numbers in batches that wait for a gate; a negative number is refused, 0 fails its whole batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        assert self.gate.wait(20)
        if 0 in items:
            raise ZeroDivisionError
        return [2 * item if item > 0 else ValueError(f"{item} is negative") for item in items]


@pytest.fixture
def work() -> Iterator[Doubling]:
    doubling = Doubling()
    yield doubling
    doubling.gate.set()


def lane_of(work: Doubling, max_waiting: int | None = None) -> Lane[int, int]:
    return Lane(work, max_items=4, name="routelearn-test-lane", max_waiting=max_waiting)


async def behind(lane: Lane[int, int], work: Doubling, items: Sequence[int]) -> list[asyncio.Task[int]]:
    """A first item that holds the lane at the gate, and the others that wait behind it."""
    work.gate.clear()
    tasks = [asyncio.create_task(lane.submit(1, 20))]
    while not work.batches:
        await asyncio.sleep(0.001)
    tasks += [asyncio.create_task(lane.submit(item, 20)) for item in items]
    while lane.waiting < len(items):
        await asyncio.sleep(0.001)
    return tasks


def test_items_that_wait_form_batches_of_at_most_the_largest_size(work: Doubling) -> None:
    lane = lane_of(work)

    async def run() -> list[int]:
        tasks = await behind(lane, work, [2, 3, 4, 5, 6])
        work.gate.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(run()) == [2, 4, 6, 8, 10, 12]
    assert work.batches == [[1], [2, 3, 4, 5], [6]]


def test_a_result_that_is_an_exception_is_raised_for_its_item_only(work: Doubling) -> None:
    lane = lane_of(work)

    async def run() -> list[int | BaseException]:
        tasks = await behind(lane, work, [-2, 3])
        work.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, refused, last = asyncio.run(run())
    assert (first, last) == (2, 6)
    assert isinstance(refused, ValueError)


def test_work_that_raises_fails_its_batch_and_the_lane_goes_on(work: Doubling) -> None:
    lane = lane_of(work)

    async def run() -> list[int | BaseException]:
        tasks = await behind(lane, work, [0, 3])
        work.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        return [*results, await lane.submit(4, 20)]

    first, *failed, last = asyncio.run(run())
    assert (first, last) == (2, 8)
    assert [type(error) for error in failed] == [ZeroDivisionError] * 2


def test_results_of_another_number_than_the_items_are_an_error_and_not_mixed_up() -> None:
    lane: Lane[int, int] = Lane(lambda items: [], max_items=4, name="routelearn-test-lane")
    with pytest.raises(ValueError, match="zip"):
        asyncio.run(lane.submit(1, 20))


def test_a_full_lane_refuses_at_once(work: Doubling) -> None:
    lane = lane_of(work, max_waiting=2)

    async def run() -> str:
        tasks = await behind(lane, work, [2, 3])
        with pytest.raises(LaneError) as refusal:
            await lane.submit(4, 20)
        work.gate.set()
        await asyncio.gather(*tasks)
        return refusal.value.cause

    assert asyncio.run(run()) == "busy"


def test_an_item_whose_time_is_over_is_dropped(work: Doubling) -> None:
    lane = lane_of(work)

    async def run() -> str:
        tasks = await behind(lane, work, [])
        with pytest.raises(LaneError) as refusal:
            await lane.submit(2, 0.05)
        work.gate.set()
        await asyncio.gather(*tasks)
        await lane.submit(3, 20)
        return refusal.value.cause

    assert asyncio.run(run()) == "timeout"
    assert work.batches == [[1], [3]]


@pytest.mark.parametrize("finish", [True, False])
def test_closing_works_off_what_waits_or_refuses_it(work: Doubling, finish: bool) -> None:
    lane = lane_of(work)

    async def run() -> list[int | BaseException]:
        tasks = await behind(lane, work, [2, 3])
        threading.Timer(0.05, work.gate.set).start()
        await asyncio.to_thread(lane.close, finish=finish)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        return [*results, *await asyncio.gather(lane.submit(4, 20), return_exceptions=True)]

    first, *waiting, after = asyncio.run(run())
    assert first == 2
    assert isinstance(after, LaneError) and after.cause == "closed"
    causes = [result.cause if isinstance(result, LaneError) else result for result in waiting]
    assert causes == ([4, 6] if finish else ["closed", "closed"])


def test_each_result_is_reported_once_before_its_caller_gets_it(work: Doubling) -> None:
    reported: list[tuple[int, int | Exception]] = []
    lane: Lane[int, int] = Lane(
        work, max_items=4, name="routelearn-test-lane", on_result=lambda item, result: reported.append((item, result))
    )

    async def run() -> None:
        first, left, last = await behind(lane, work, [2, 3])
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        work.gate.set()
        assert await last == 6
        assert reported == [(1, 2), (3, 6)]
        assert await first == 2

    asyncio.run(run())
