"""The command `slipstream`, as `python -m slipstream_trio`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
