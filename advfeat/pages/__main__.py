"""``python -m advfeat.pages``: run the chapters, build the pages."""

import sys

from advfeat.pages.runner import main

if __name__ == "__main__":
    sys.exit(main())
