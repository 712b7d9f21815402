"""What the operating system reports about this process."""

import re
import resource
import sys
from pathlib import Path


def highest_resident_bytes() -> int:
    """Return the peak resident size of this program in bytes, by the kernel's count."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux's ru_maxrss is inherited: it would start at the size of the process that started this one.
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(encoding="ascii", errors="replace"), re.MULTILINE)
        if found:
            return 1024 * int(found[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def cpu_seconds() -> float:
    """Return the CPU time in seconds that this process and its finished children have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
