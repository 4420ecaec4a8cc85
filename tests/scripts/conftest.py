"""Scripts that measure the data engine are tested with its tiny model and records."""

import sys

from tests.conftest import REPOSITORY
from tests.data_engine.conftest import command, engine_bundle, photo_records

__all__ = ["command", "engine_bundle", "photo_records"]

# Scripts find those beside them; last, so that none is taken for a package.
sys.path += [str(REPOSITORY / "scripts" / name) for name in ("bench", "reproduce")]
