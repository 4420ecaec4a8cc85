"""Fixtures of tagging: the pool of devices is tried with whole taggers."""

from tests.tagging.conftest import colours

__all__ = ["colours"]
