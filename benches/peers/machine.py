"""What the times were taken on: the processor's name, and what its threads can do at most."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path


def cpu():
    names = (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").open() if line.startswith("model name"))
    return next(names, "unknown CPU")


def vectors():
    """The sets of vector instructions that matter to attention."""
    flags = next((line.split() for line in Path("/proc/cpuinfo").open() if line.startswith(("flags", "Features"))), [])
    known = {
        "avx2": "AVX2",
        "avx512f": "AVX-512",
        "avx512_bf16": "AVX-512 BF16",
        "avx512_fp16": "AVX-512 FP16",
        "amx_bf16": "AMX BF16",
        "asimd": "NEON",
    }
    return [name for flag, name in known.items() if flag in flags]


def describe(remark):
    return {
        "machine": cpu(),
        "vectors": vectors(),
        "cpus": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d"),
        "command": command(),
        "remark": remark,
    }


def command():
    """How `run.sh` was called, or this program, without the folders of this machine; the remark stands elsewhere."""
    own = [Path(sys.argv[0]).name, *sys.argv[1:]]
    words = shlex.split(os.environ["PEERS_COMMAND"]) if "PEERS_COMMAND" in os.environ else own
    if "--remark" in words:
        at = words.index("--remark")
        del words[at : at + 2]
    return shlex.join(words)


def roof(command, cpus):
    """The rates of all `cpus` together: each measures at the same time."""

    def start(cpu):
        pin = lambda: os.sched_setaffinity(0, {cpu})  # noqa: E731
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=pin)

    rates = [json.loads(process.communicate()[0]) for process in [start(cpu) for cpu in sorted(cpus)]]
    row = {"roof": len(cpus)}
    for key in ("fma_f32_gflops", "fma_bf16_gflops"):
        row[key] = sum(rate[key] or 0 for rate in rates)
    row["read_gbs"] = {size: round(sum(rate["read_gbs"][size] for rate in rates), 1) for size in rates[0]["read_gbs"]}
    return row
