"""`python -m dgrt`: the same as the `dgrt` command."""

import sys

from dgrt.cli import main

if __name__ == "__main__":
    sys.exit(main())
