"""`python -m safeladder` is the `safeladder` command."""

from __future__ import annotations

import sys

from safeladder.cli import main

if __name__ == "__main__":
    sys.exit(main())
