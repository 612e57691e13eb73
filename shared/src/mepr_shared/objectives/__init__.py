"""Training objectives: what is minimised on labelled samples."""
