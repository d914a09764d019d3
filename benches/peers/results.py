"""The JSON lines of a run (bench.py): times by workload and peer, the machine, its roofs."""

import json
import math
from dataclasses import dataclass, field

from workloads import all_workloads

OURS = "ours"
# A lead below this is a tie on most machines: it counts as lost.
WON = 1.05
DTYPES = ("f32", "f16", "bf16")


@dataclass
class Cell:
    """One workload at one number of threads: the last row of each peer."""

    workload: object
    threads: int
    rows: dict = field(default_factory=dict)

    @property
    def ours(self):
        return self.rows.get(OURS)

    @property
    def peers(self):
        """Those that computed the right thing, the fastest first."""
        rows = [row for name, row in self.rows.items() if name != OURS and row["correct"]]
        return sorted(rows, key=lambda row: row["ns"])

    @property
    def best(self):
        return next(iter(self.peers), None)

    @property
    def lead(self):
        """How many times as fast as the best peer we are."""
        return self.best["ns"] / self.ours["ns"] if self.ours and self.best else None

    def rate(self, row):
        """GFLOP/s of a prompt, GB/s of K and V in decoding."""
        return (self.workload.kv_bytes if self.decode else self.workload.flops) / row["ns"]

    @property
    def decode(self):
        return self.workload.sq == 1

    @property
    def group(self):
        w = self.workload
        if w.shape == "tiny":
            return "tiny"
        if self.decode:
            return "decode, one sequence" if w.b == 1 else f"decode, {w.b} sequences"
        return "prompts up to 512" if w.sq <= 512 else "prompts of 2,048 and more"


class Results:
    def __init__(self, path):
        with open(path) as f:
            rows = [json.loads(line) for line in f]
        self.machine = [row for row in rows if "machine" in row][-1]
        self.roofs = {}
        for row in rows:
            if "roof" in row:
                self.roofs[row["roof"]] = better(row, self.roofs.get(row["roof"], row))
        known = {(w.name, w.dtype): w for w in all_workloads()}
        cells = {}
        for row in rows:
            key = row.get("workload"), row.get("dtype"), row.get("threads")
            if "ns" in row and key[:2] in known:
                cells.setdefault(key, Cell(known[key[:2]], key[2])).rows[row["peer"]] = row
        order = list(known)
        self.cells = sorted(cells.values(), key=lambda c: (c.threads, order.index((c.workload.name, c.workload.dtype))))

    @property
    def threads(self):
        return sorted({cell.threads for cell in self.cells})

    def of(self, dtype, threads):
        return [cell for cell in self.cells if (cell.workload.dtype, cell.threads) == (dtype, threads)]

    def limit(self, cell):
        """The rate that the machine can't exceed, in the units of `Cell.rate`, and its name."""
        roof = self.roofs.get(cell.threads)
        if not roof:
            return None, ""
        w = cell.workload
        fma = roof["fma_f32_gflops"]
        if not cell.decode:
            return fma, "FMA"
        read = self.reading(w.kv_bytes, cell.threads)
        by_fma = fma * w.kv_bytes / w.flops
        return (by_fma, "FMA") if by_fma < read else (read, "reading")

    def reading(self, size, threads):
        """The rate of reading about `size` bytes again and again, each thread its part."""
        rates = self.roofs[threads]["read_gbs"]
        return rates[min(rates, key=lambda measured: abs(math.log(int(measured) * threads / size)))]


def better(a, b):
    """The best of two readings: noise only slows."""
    if isinstance(a, dict):
        return {key: better(a[key], b[key]) for key in a}
    return max(a, b)


def geometric_mean(values):
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values))
