"""Stage 3 of MEPR."""

__version__ = "0.1.0"
