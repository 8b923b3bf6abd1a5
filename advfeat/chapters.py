"""The former name of ``python -m advfeat.pages``, which this command runs with a word about it."""

import sys

from advfeat.pages.runner import main

if __name__ == "__main__":
    print("python -m advfeat.chapters is now called python -m advfeat.pages", file=sys.stderr)
    sys.exit(main())
