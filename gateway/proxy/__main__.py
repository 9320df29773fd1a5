"""``python -m gateway.proxy``: one worker. ``turnout serve`` starts these."""

import sys

from gateway.proxy.worker import main

if __name__ == "__main__":
    sys.exit(main())
