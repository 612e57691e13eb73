"""One directory with the models of all stages: what a team ships."""
