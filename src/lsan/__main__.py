"""`python -m lsan` is `lsan`."""

import sys

from lsan.cli import main

sys.exit(main())
