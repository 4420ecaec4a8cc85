"""Scripts that measure the data engine are tested with its tiny model and records."""

from tests.data_engine.conftest import engine_bundle, photo_records, run_here

__all__ = ["engine_bundle", "photo_records", "run_here"]
