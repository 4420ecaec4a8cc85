"""The parallel map keeps the order of its items and passes errors on."""

import pytest

from ramctl.inference.batches import ordered_map


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(workers):
    assert list(ordered_map(lambda n: n * n, iter(range(100)), workers)) == [
        n * n for n in range(100)
    ]


def test_an_error_in_a_worker_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(ordered_map(lambda n: 1 // n, [1, 1, 0, 1], 2))
