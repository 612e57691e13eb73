"""The published variant of stage 3, and the importer of its weights."""
