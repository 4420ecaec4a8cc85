"""Scripts that measure the data engine are tested with its tiny model and records."""

import sys

from tests.conftest import REPOSITORY
from tests.data_engine.conftest import engine_bundle, photo_records, run_here

__all__ = ["engine_bundle", "photo_records", "run_here"]

# Scripts find those beside them; last, so that none is taken for a package.
sys.path += [str(REPOSITORY / "scripts" / name) for name in ("bench", "reproduce")]
