"""Where the package lies, and with it the book."""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
"""The folder that holds the package: a checkout of the project, with the book in it, or ``site-packages``."""
