"""`python -m rejoin`."""

import sys

from rejoin.cli import main

sys.exit(main())
