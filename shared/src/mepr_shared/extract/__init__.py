"""From a corpus to frame stores: pretrained weights, and the engine that runs encoders."""
