"""Scripts find those beside them; last, so that none is taken for a package."""

import sys

from tests.conftest import REPOSITORY

sys.path += [str(REPOSITORY / "scripts" / name) for name in ("bench", "reproduce")]
