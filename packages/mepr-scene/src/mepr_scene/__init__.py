"""The scene modality of MEPR."""

__version__ = "0.1.0"
