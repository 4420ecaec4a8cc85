"""Fixtures of inference: a bundle in which a global branch ranks the labels."""

import pytest

from ramctl.checkpoints.bundle import Bundle
from tests.support import one_thread, write_tiny_bundle

__all__ = ["one_thread"]

RANKED = ["model.prior.classes=10", "model.prior.class_sharpness=3.0"]


@pytest.fixture(scope="module")
def ranked(tmp_path_factory) -> Bundle:
    """A tiny bundle with all parts of the global branch."""
    path = tmp_path_factory.mktemp("bundles") / "ranked"
    return Bundle.open(write_tiny_bundle(path, changes=RANKED))
