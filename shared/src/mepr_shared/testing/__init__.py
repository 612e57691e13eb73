"""What packages test themselves with: the conformance suite for modalities, tiny corpora."""
