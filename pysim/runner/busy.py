"""How much of this process's cores other programs used, for figures that only an idle machine gives."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")
# proc_stat(5): user nice system idle iowait irq softirq steal; guest time is in user already.
_IDLE, _IOWAIT, _COUNTED = 3, 4, 8


@dataclass(frozen=True, slots=True)
class CoreUse:
    """Seconds since some fixed moment: all cores of this process together, and what it used itself."""

    busy: float
    own: float
    total: float


def core_use(stat: Path = _STAT) -> CoreUse | None:
    """The cores this process may run on, until now; None where the system does not say (not Linux)."""
    try:
        lines = stat.read_text(encoding="ascii").splitlines()
        allowed = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        tick = os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError):
        return None
    rows = [[int(x) for x in line.split()[1 : _COUNTED + 1]] for line in lines if line.split()[0] in allowed]
    if not rows:
        return None
    total = sum(map(sum, rows)) / tick
    idle = sum(row[_IDLE] + row[_IOWAIT] for row in rows) / tick
    own = resource.getrusage(resource.RUSAGE_SELF)
    return CoreUse(busy=total - idle, own=own.ru_utime + own.ru_stime, total=total)


def cores_used_by_others(before: CoreUse | None, after: CoreUse | None) -> float | None:
    """Cores that other programs kept busy between two moments, at least 0; None if unknown."""
    if before is None or after is None or after.total <= before.total:
        return None
    cores = len(os.sched_getaffinity(0))
    others = (after.busy - before.busy) - (after.own - before.own)
    return max(0.0, others / (after.total - before.total) * cores)
