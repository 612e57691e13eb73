"""What a trained run says about emotions, traits and modalities."""
