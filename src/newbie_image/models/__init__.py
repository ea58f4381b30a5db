"""What has weights: the transformer and the text tower, with the functions that they are made of."""

from __future__ import annotations
