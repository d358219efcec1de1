"""The garbage collector of a process that runs for months.

It looks through everything that was loaded, again and again, for what nobody can reach: an eighth of what a charger's
values cost. Here nearly all goes by itself when its last reader is done with it.
"""

import gc

SETTLED = 60.0
"""Seconds after the start: all is loaded and connected."""
_ALLOCATED = 5000
"""Objects more than were let go, before the young ones are looked through. Python's own 700 is less than what a few
messages need between a socket and the disk.
"""


def settle() -> None:
    """What is there now stays, and is not looked through again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATED)
