"""`python -m guard.cli` is `mailward`."""

import sys

from guard.cli import main

sys.exit(main())
