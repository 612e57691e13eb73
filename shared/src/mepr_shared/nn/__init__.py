"""Networks shared by all modalities: sequence encoders, pooling, stage 1 and stage 2 models."""
