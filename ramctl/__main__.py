"""`python -m ramctl`, and the command `ramctl`."""

import signal

# Ctrl-C ends the process without a word until `main`, which takes it from there, is imported.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from ramctl.cli import main

if __name__ == "__main__":
    main()
