"""Pictures of people: faces, crops and image encoders, for every modality that looks."""
