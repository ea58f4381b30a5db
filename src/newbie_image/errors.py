"""The exception tree of the project.

Every error that a user can cause is a :class:`NewbieError`. Its message is one line that says what was
given, what is allowed and how to mend it; the command line prints it and leaves with exit code 2, without a
traceback.
"""

from __future__ import annotations


class NewbieError(Exception):
    """Base of every error that this package raises on purpose."""


class PromptError(NewbieError):
    """A prompt that cannot be read.

    Args:
        message: one line: what was found, what is allowed, the fix.
        line: line of the place, from 1; None where there is no place.
        column: column of the place in characters, from 1.
        offset: offset of the place in characters, from 0.
        source: the whole text, from which an excerpt can be shown.
    """

    def __init__(
        self,
        message: str,
        *,
        line: int | None = None,
        column: int | None = None,
        offset: int | None = None,
        source: str | None = None,
    ) -> None:
        where = "" if line is None else f"line {line}, column {column}: "
        super().__init__(where + message)
        self.reason = message
        self.line = line
        self.column = column
        self.offset = offset
        self.source = source


class RequestError(NewbieError):
    """A setting of a picture that is out of range or unknown (size, seed, sampler, …)."""


class ConfigError(NewbieError):
    """A configuration file with an unknown, missing or misshapen entry."""


class CheckpointError(NewbieError):
    """A weight file or bundle that is missing, damaged, misnamed or of another model."""


class DeviceError(NewbieError):
    """A device, dtype or attention backend that this machine does not have."""


class OutOfMemoryError(NewbieError):
    """The device's memory did not suffice; the message says what to change."""


class NumericsError(NewbieError):
    """NaN or infinity in the latents; the message names the step and a dtype that helps."""


class OutputError(NewbieError):
    """A picture or file that cannot be written."""


class MissingDependencyError(NewbieError):
    """An optional package that is not installed; the message has the pip line."""


class ProvenanceError(NewbieError):
    """A picture from which what made it cannot be read."""
