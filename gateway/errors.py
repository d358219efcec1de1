"""Errors by who acts on them; a foreign library's exceptions are turned into these where it is imported."""


class LampioneError(Exception):
    """Base: `str()` of it is one plain sentence that a technician may be shown."""


class ConfigError(LampioneError):
    """The integrator acts: a file that people write says something impossible."""


class LinkError(LampioneError):
    """The supervisor acts: the wire is gone; back off and run the driver again, for ever."""


class DeviceError(LampioneError):
    """The driver acts: one device failed; its points turn bad, its neighbours are not touched.

    `reason` is the slug that travels with the bad readings, see `model.Reason`.
    """

    def __init__(self, say: str, reason: str = "device_failure") -> None:
        super().__init__(say)
        self.reason = reason


REFUSED, TOO_LARGE = "refused", "too_large"


class UplinkError(LampioneError):
    """Delivery acts: the batch was not settled; keep it and send it again.

    `code` is REFUSED where the platform has read the batch and does not take it, TOO_LARGE where it is more than
    the way there allows: both are about this one batch. Without a code it is the connection or the platform.
    `pause`: seconds that the platform wants to be left alone.
    """

    def __init__(self, say: str, code: str = "", pause: float = 0.0) -> None:
        super().__init__(say)
        self.code, self.pause = code, pause


class StorageError(LampioneError):
    """The buffer could not make a record durable; whoever waits for it must not answer its peer."""


class CommandError(LampioneError):
    """A command is refused or has failed; `code` is the slug of the reply, the text is what it says."""

    def __init__(self, code: str, say: str) -> None:
        super().__init__(say)
        self.code = code
