"""`python -m picme_rt`: the command `picme`, where its script is not on the path."""

import sys

from picme_rt.cli import main

sys.exit(main())
