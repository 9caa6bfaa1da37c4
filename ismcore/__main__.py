"""`python -m ismcore`: the command line of `ismcore.cli`."""

from ismcore.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
