"""Commands of a user, in a folder of the test's own."""

from tests.support import command

__all__ = ["command"]
