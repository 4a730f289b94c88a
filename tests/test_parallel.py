"""All cores at once, and one of them for small operations."""

import threading

import pytest
import torch

from inrformat.parallel import alone, map_on_cores


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def threads(_):
    return torch.get_num_threads()


@pytest.mark.usefixtures("two_threads")
def test_every_core_is_used_alone():
    assert map_on_cores(threads, range(5)) == [1] * 5
    assert map_on_cores(lambda item: item * item, range(5)) == [0, 1, 4, 9, 16]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_alone_leaves_the_other_cores_to_map_on_cores(monkeypatch):
    pools = []
    monkeypatch.setattr(
        "inrformat.parallel._pool",
        lambda cores, real=map_on_cores.__globals__["_pool"]: (pools.append(cores), real(cores))[1],
    )
    with pytest.raises(ValueError, match="on the way"), alone(), alone():
        assert torch.get_num_threads() == 1
        assert map_on_cores(threads, range(3)) == [1] * 3
        assert torch.get_num_threads() == 1
        raise ValueError("on the way")
    assert pools == [2]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_threads_that_overlap_find_their_cores_again():
    """The second begins while the first is alone, and leaves last."""
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))
    after = []

    def first():
        with alone():
            first_is_in.set()
            assert second_is_in.wait(10)
        after.append(torch.get_num_threads())
        first_is_out.set()

    def second():
        assert first_is_in.wait(10)
        with alone():
            second_is_in.set()
            assert first_is_out.wait(10)
            assert torch.get_num_threads() == 1
        after.append(torch.get_num_threads())

    def later():
        after.append(torch.get_num_threads())

    both = [threading.Thread(target=run) for run in (first, second)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    fresh = threading.Thread(target=later)
    fresh.start()
    fresh.join()
    assert after == [2, 2, 2]
    assert torch.get_num_threads() == 2
