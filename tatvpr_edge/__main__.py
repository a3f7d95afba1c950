"""``python -m tatvpr_edge``: the command line."""

import sys

from tatvpr_edge.cli import main

sys.exit(main())
