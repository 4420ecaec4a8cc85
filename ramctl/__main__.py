"""`python -m ramctl`, and the command `ramctl`."""

from ramctl.cli import main

if __name__ == "__main__":
    main()
