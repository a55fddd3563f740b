"""Memory that is freed: a worker keeps it, so that the next batch takes it again without the system's zeroed pages; and
a driver hands it back."""

import ctypes

import pyarrow as pa

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Of glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Have glibc's malloc keep what this process frees, where there is a glibc. The most that was in use is kept.

    By default it hands large arrays back to the system, which zeroes each page of the next: a third of the time of a
    small network's forward pass on a CPU.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 1 << 26)
    # Some versions take no more than 32 MiB.
    if not mallopt(_MMAP_THRESHOLD, 1 << 30):
        mallopt(_MMAP_THRESHOLD, 1 << 25)


def give_back_freed_memory() -> None:
    """Hand back to the system what this process freed, where there is a glibc.

    By default glibc keeps arrays of up to 32 MiB that lie below others: of many files that are read one after another,
    as much as what is in use.
    """
    pa.default_memory_pool().release_unused()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return
