"""The errors of the export, as the runtime's command line knows them."""

from fastembed_rt.errors import (
    CheckpointError,
    InvalidInputError,
    MissingDependencyError,
    OutputExistsError,
    ParityError,
    UnsupportedCheckpointError,
)

__all__ = [
    "CheckpointError",
    "InvalidInputError",
    "MissingDependencyError",
    "OutputExistsError",
    "ParityError",
    "UnsupportedCheckpointError",
]
