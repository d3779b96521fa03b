"""The command `slipstream`, as `python -m slipstream_trio`."""

import sys

from .cli import main

sys.exit(main())
