"""Media files: what they hold, their sound, their frames. PyAV (`mepr-shared[media]`), no torch."""
