"""``python -m advfeat.bench``: the benchmark of this machine."""

import sys

from advfeat.bench.suite import main

if __name__ == "__main__":
    sys.exit(main())
