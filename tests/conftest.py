"""Fixtures that every part of the tests may use."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of random weights on disk (float32). Read it; copy it before changing a file."""
    from tests.tiny import write_bundle

    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
