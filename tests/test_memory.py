"""What `keep_freed_memory` does to arrays that come and go."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np
from ismcore.analytic.memory import keep_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

def kept(mebibytes):
    array = np.ones(mebibytes * 2**17)
    whole = resident()
    del array
    return whole - resident() < 128 * mebibytes

{call}
print(kept(20))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators take no notice")
@pytest.mark.parametrize(("call", "kept"), [("", "False"), ("keep_freed_memory()", "True")], ids=["without", "with"])
def test_memory_of_a_freed_array_stays(call, kept):
    program = PROGRAM.format(call=call)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [kept]
