"""The embedded model: the world it is trained on, its captions, its recipe and its evaluator."""
