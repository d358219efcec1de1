"""`python -m gateway` is `lampione`."""

import sys

from gateway.cli import main

sys.exit(main())
