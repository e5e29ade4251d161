"""What an earlier attempt of a job has left in the store is never taken for an answer of this one."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch._C._distributed_c10d import HashStore, Store

from hdetr_d2.engine.attempts import store_of_this_attempt

SECONDS = timedelta(seconds=60)


def attempt(shared: Store, *ranks: int, world_size: int = 3, timeout: timedelta = SECONDS) -> list[Store]:
    with ThreadPoolExecutor(len(ranks)) as pool:
        waiting = [
            pool.submit(store_of_this_attempt, shared, rank=rank, world_size=world_size, timeout=timeout)
            for rank in ranks
        ]
        return [each.result() for each in waiting]


def test_all_ranks_of_an_attempt_share_a_store_that_no_other_attempt_has_written() -> None:
    shared = HashStore()
    for number in range(20):
        stores = attempt(shared, 0, 1, 2)
        assert not any(store.check(["address"]) for store in stores)
        stores[number % 3].set("address", str(number))
        assert [store.get("address") for store in stores] == [str(number).encode()] * 3


@pytest.mark.parametrize("arrived", [(0,), (1, 2), (0, 2), (2,)])
def test_ranks_that_an_attempt_lost_do_not_disturb_the_next(arrived: tuple[int, ...]) -> None:
    shared = HashStore()
    attempt(shared, 0, 1, 2)[0].set("address", "old")
    with pytest.raises(TimeoutError, match=r"rank \d did not arrive"):
        attempt(shared, *arrived, timeout=timedelta(seconds=0.1))
    stores = attempt(shared, 0, 1, 2)
    assert not any(store.check(["address"]) for store in stores)
    stores[1].set("address", "new")
    assert stores[0].get("address") == stores[2].get("address") == b"new"


def test_a_job_of_one_process_waits_for_nobody() -> None:
    assert not attempt(HashStore(), 0, world_size=1)[0].check(["address"])
