"""What has weights: the transformer and the text towers."""
