"""Training: one readable loop, and the stages that run through it."""
