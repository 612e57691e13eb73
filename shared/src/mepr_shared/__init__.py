"""What every MEPR package shares."""

__version__ = "0.1.0"
