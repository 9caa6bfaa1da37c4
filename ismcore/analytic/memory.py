"""The C library's allocator, told in passing that large arrays come and go."""

import numpy as np

__all__ = ["keep_freed_memory"]

LARGEST = 31 * 2**20
"""Just below 32 MiB, up to which glibc learns from blocks that are freed."""


def keep_freed_memory() -> None:
    """Have glibc keep freed memory of up to 64 MiB for the next request, as it does once a large array has been freed.

    It gives arrays above 128 KiB back to the kernel at once, and gets them page by page again, until a larger block has been
    freed: from then on only blocks above that size are, and the top of the heap is trimmed beyond twice of it
    (M_MMAP_THRESHOLD in mallopt(3)). So one block is taken, not touched, and freed. Temporaries of a training step then stay
    where they are, in the cache: up to half the time of a step in NumPy and torch. Other allocators take no notice.
    """
    np.empty(LARGEST, dtype=np.uint8)
