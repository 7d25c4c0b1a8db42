"""The errors of the core.

Arguments that can never work (a negative length, a text that is no string) raise the built-in
``ValueError`` or ``TypeError``. Everything that depends on files, hardware or the model is here::

    M3Error
    ├── CheckpointError
    │   ├── CheckpointNotFoundError
    │   ├── CorruptCheckpointError
    │   ├── MissingHeadError
    │   ├── SavingError
    │   └── UnsupportedModelError
    ├── MissingRepresentationError
    ├── DeviceError
    ├── OutOfMemoryError
    ├── NonFiniteError
    ├── IndexFileError
    ├── StoreError
    ├── FilterError (also a ``ValueError``)
    ├── TrainingDataError
    ├── EvaluationDataError
    ├── DatasetError
    ├── RemoteError
    │   ├── BadReplyError
    │   └── ModelChangedError
    ├── MissingPackageError (also an ``ImportError``)
    └── ClosedError
"""

from __future__ import annotations


class M3Error(Exception):
    """Base of all errors that this package raises on purpose."""


class CheckpointError(M3Error):
    """A checkpoint cannot be used."""


class CheckpointNotFoundError(CheckpointError):
    """Neither a local folder nor a reachable or cached hub repository holds the files."""


class CorruptCheckpointError(CheckpointError):
    """A file of the checkpoint is cut, unreadable or does not fit the others."""


class MissingHeadError(CheckpointError):
    """A checkpoint has one of the two M3 heads, or none where the model is known to have them."""


class SavingError(CheckpointError):
    """A checkpoint could not be written; what was there before is as it was."""


class UnsupportedModelError(CheckpointError):
    """The checkpoint holds another kind of model than the one asked for."""


class MissingRepresentationError(M3Error):
    """A representation was asked for that the checkpoint cannot give."""


class DeviceError(M3Error):
    """The device is absent or cannot compute in the data type."""


class OutOfMemoryError(M3Error):
    """A single text does not fit into the device's memory."""


class NonFiniteError(M3Error):
    """The model's output for some texts holds NaN or infinity."""


class IndexFileError(M3Error):
    """A file holds no lexical index, a damaged one, or one made with another model."""


class StoreError(M3Error):
    """A collection of a vector store holds other vectors than the model gives."""


class FilterError(M3Error, ValueError):
    """A filter of metadata holds something that it cannot, or that the store cannot express."""


class ClosedError(M3Error):
    """The object was used after ``close()``."""


class TrainingDataError(M3Error):
    """A training file is absent, empty, or holds a line that is not an example."""


class DatasetError(M3Error):
    """A corpus cannot be read, or its encoded form cannot be written, resumed or loaded."""


class RemoteError(M3Error):
    """A server cannot be reached, refuses, or does not have what was asked of it.

    Args:
        message: What was asked, what came, and what to do.
        status: The HTTP status of its reply.

    Attributes:
        status: The HTTP status of its reply; ``None`` if there was none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.status)


class BadReplyError(RemoteError):
    """The reply of a server was cut, damaged, or is something else than what was asked for."""


class ModelChangedError(RemoteError):
    """A server gives other vectors than it did before: it has another model now."""


class EvaluationDataError(M3Error):
    """A test collection is absent, cut, or holds something else than it should."""


class MissingPackageError(M3Error, ImportError):
    """A package is absent that an extra of this distribution installs."""
