"""`python -m ramctl`, and the command `ramctl`."""

import gc

gc.set_threshold(50_000)  # what a start makes stays: looking through it again takes 20 ms

from ramctl.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
