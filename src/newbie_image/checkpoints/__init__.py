"""Weights on disk: strict loading into the model's classes."""
