"""The command line: `mepr`, and the group that every modality package gets from its plugin."""
