"""Inputs that nobody would write: a good one with bytes flipped, cut, doubled, moved, replaced."""

import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from ramctl.errors import RamctlError

# How many inputs each reader gets; scripts/fuzz asks for many more.
INPUTS = int(os.environ.get("RAMCTL_FUZZ", "150"))
SLOWEST_S = 20.0  # of one input, on a machine that does other things too
MOST_GROWTH = 600_000_000  # bytes of resident memory
# What breaks readers more often than noise: numbers at the borders of types, ends of structures,
# names that lead elsewhere, what terminals and pages would obey.
TOKENS = (
    b"null", b"true", b"[]", b"{}", b"[[", b"]]", b'"', b"\\", b"\\u0000", b"\\ud800", b"\x00",
    b"\xff\xfe", b"\xef\xbb\xbf", b"-0", b"-1", b"0", b"1e999", b"-1e999", b"NaN", b"Infinity",
    b"9223372036854775808", b"18446744073709551616", b"0.1e-5", b"1_0", b"\n", b"\r\n", b"\r",
    b"\t", b",", b":", b"../" * 9 + b"etc/hosts", b"/dev/zero", b".tar#", b"a.tar#../b",
    b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/hosts'>]>&b;", b"</script><script>", b"\x1b[2J",
    b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\x00\x00\x00", b"a" * 5000, b"[" * 3000,
)  # fmt: skip


def damaged(seeds: Sequence[bytes], name: str, number: int = INPUTS) -> Iterator[bytes]:
    """The seeds themselves, then `number` damaged ones; the same for the same name."""
    yield from seeds
    draw = random.Random(f"{name}:{os.environ.get('RAMCTL_FUZZ_SEED', '0')}")
    for _ in range(number):
        data = bytearray(draw.choice(seeds))
        for _ in range(min(draw.randrange(1, 5), draw.randrange(1, 9))):
            _damage(data, seeds, draw)
        yield bytes(data)


def _damage(data: bytearray, seeds: Sequence[bytes], draw: random.Random) -> None:
    start = draw.randrange(len(data) + 1)
    end = min(len(data), start + draw.choice((1, 1, 2, 4, 16, 100, 1000)))
    kind = draw.randrange(7)
    if kind == 0:
        del data[start:]
    elif kind == 1:
        del data[start:end]
    elif kind == 2:
        data[start:start] = data[start:end] * draw.choice((1, 2, 50))
    elif kind == 3:
        data[start : start + draw.choice((0, 1, 4))] = draw.choice(TOKENS)
    elif kind == 4:
        other = draw.choice(seeds)
        cut = draw.randrange(len(other) + 1)
        data[start:end] = other[cut : cut + 200]
    else:
        for place in range(start, end):
            data[place] = draw.choice((draw.randrange(256), data[place] ^ 1 << draw.randrange(8)))


def survive(read: Callable[[bytes], object], seeds: Sequence[bytes], name: str) -> None:
    """Give damaged seeds to a reader, which may refuse them as the product does, and nothing else.

    AssertionError names an input that ends otherwise, takes long, or makes memory grow. How many
    were taken and refused is printed.
    """
    before, n_taken, n_refused = _memory(), 0, 0
    for data in damaged(seeds, name):
        started = time.process_time()
        try:
            read(data)
            n_taken += 1
        except RamctlError as problem:
            assert "\n" not in problem.message.strip(), f"more than a line: {problem.message!r}"
            n_refused += 1
        except BaseException as error:
            raise AssertionError(f"{type(error).__name__}: {error} for {data[:3000]!r}") from error
        assert time.process_time() - started < SLOWEST_S, f"took long: {data[:3000]!r}"
    grown = _memory() - before
    assert grown < MOST_GROWTH, f"memory grew by {grown} bytes"
    sys.stdout.write(f"{name}: {n_taken} taken, {n_refused} refused\n")


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
