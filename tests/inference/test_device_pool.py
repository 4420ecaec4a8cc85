"""Several workers, and devices tried with processes on the CPU: order, deaths, errors."""

import multiprocessing

import pytest
from PIL import Image

from ramctl import Tagger
from ramctl.errors import RunProblem
from ramctl.inference.device_pool import split_devices
from ramctl.records.parallel import ordered_map


@pytest.fixture
def many(tmp_path):
    for number in range(60):
        colour = ("red", "blue", (0, 255, 0))[number % 3]
        Image.new("RGB", (20 + number, 30), colour).save(tmp_path / f"{number:02}.png")
    return sorted(tmp_path.glob("*.png"))


def load(tiny_bundle, device):
    return Tagger.from_pretrained(str(tiny_bundle), device=device, batch=4, jobs=1)


@pytest.mark.parametrize("workers", [1, 5])
def test_results_come_in_the_order_of_the_items(workers):
    squares = [n * n for n in range(100)]
    assert list(ordered_map(lambda n: n * n, iter(range(100)), workers)) == squares


def test_devices_are_listed_by_name_or_number():
    assert split_devices("cuda:0,1,3") == ["cuda:0", "cuda:1", "cuda:3"]
    assert split_devices("cpu,cpu") == ["cpu", "cpu"]
    assert split_devices("auto") == ["auto"]


def test_two_processes_give_what_one_gives_in_the_same_order(tiny_bundle, many):
    many[7].write_bytes(b"no photo")
    given = [*many, many[0].read_bytes(), Image.open(many[1])]
    one = [str(outcome) for outcome in load(tiny_bundle, "cpu").outcomes(given)]
    assert [str(outcome) for outcome in load(tiny_bundle, "cpu,cpu").outcomes(given)] == one


def test_a_process_that_is_killed_ends_the_run_in_one_line(tiny_bundle, many):
    tagger = load(tiny_bundle, "cpu,cpu")
    with pytest.raises(RunProblem, match="a worker process was killed"):
        for _ in tagger.tag(iter(many * 20)):
            for worker in multiprocessing.active_children():
                worker.kill()
    assert not multiprocessing.active_children()
