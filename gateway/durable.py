"""Files and folders that a power cut leaves either as they were or as they should be.

A new name counts only once the folder that it stands in is flushed.
"""

import os
import tempfile
from pathlib import Path


def replace(path: Path, content: bytes, *, flush: bool = True) -> None:
    """Put `content` at `path`, readable by its owner only. OSError: nothing was changed.

    Nobody ever reads half of it; without `flush` a power cut may take it away again.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    new = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    if flush:
        flush_names(path.parent)


def make_folder(folder: Path) -> None:
    """Make `folder` and what it needs above it, each for its owner only. OSError where the disk refuses."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    flush_names(folder.parent)


def flush_names(folder: Path) -> None:
    """Make the names in `folder` durable. OSError where the disk refuses."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
