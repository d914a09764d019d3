"""Times attention peers side by side: every peer is a process that speaks the line protocol of README.md, and takes
its turns round by round. Appends JSON lines: one that says what machine it was, then one for each time."""

import argparse
import fnmatch
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np

import machine
from workloads import all_workloads

HERE = Path(__file__).resolve().parent
DTYPES = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
TOLERANCE = {"f32": 2e-5, "f16": 4e-3, "bf16": 2e-2}

PY = [sys.executable, str(HERE / "python" / "worker.py")]
ROOT = Path(os.environ.get("PEERS_ROOT", HERE / ".env"))
RUST = ROOT / "target" / "release"
PEERS = {
    "numpy": PY + ["numpy_seed"],
    "torch-gqa": PY + ["torch_sdpa", "gqa"],
    "torch-exp": PY + ["torch_sdpa", "expanded"],
    "torch-flex": PY + ["torch_flex"],
    "ort-gqa": PY + ["ort_gqa"],
    "ort-mha": PY + ["ort_mha"],
    "ort-attn": PY + ["ort_attention"],
    "ggml": PY + ["ggml_flash"],
    "ggml-kvq8": PY + ["ggml_flash", "q8_0"],
    "ov-sdpa": PY + ["openvino_sdpa"],
    "ov-paged": PY + ["openvino_paged"],
    "jax": PY + ["jax_attention"],
    "vllm": PY + ["vllm_cpu"],
    "vllm-app": PY + ["vllm_cpu", "append"],
    "zentorch": PY + ["torch_zen"],
    "candle": [str(RUST / "candle")],
    "burn-flex": [str(RUST / "burn")],
    "tract": [str(RUST / "tract")],
    "rten": [str(RUST / "rten")],
}
# These load another PyTorch than the virtual environment's, from this folder in ROOT.
OWN_TORCH = {"vllm": "vllm", "vllm-app": "vllm", "zentorch": "zentorch"}


class Peer:
    def __init__(self, name, command, cpus):
        env = dict(os.environ)
        for var in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
            env.pop(var, None)
        for var in (
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "RAYON_NUM_THREADS",
            "RTEN_NUM_THREADS",
        ):
            env[var] = str(len(cpus))
        if name in OWN_TORCH:
            env["PEERS_FOLDER"] = env["PYTHONPATH"] = str(ROOT / OWN_TORCH[name])
        self.name = name
        self.start = lambda: subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(Path(tempfile.gettempdir()) / f"peer-{name}.log", "ab"),
            text=True,
            env=env,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )
        self.process = self.start()

    def ask(self, line):
        """One command. Between commands the process is stopped: several libraries let
        idle threads spin for tens of milliseconds, on the next peer's core."""
        try:
            self.process.send_signal(signal.SIGCONT)
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:  # ready for the next workload
            self.process.wait()
            self.process = self.start()
            raise RuntimeError(f"{self.name} died (see peer-{self.name}.log)")
        self.process.send_signal(signal.SIGSTOP)
        return answer.strip()

    def run(self, n):
        return [int(t) for t in self.ask(f"run {n}").split()[1:]]

    def close(self):
        self.process.stdin.close()  # a peer ends at the end of its input
        self.process.send_signal(signal.SIGCONT)
        self.process.wait()


def make_inputs(w, folder):
    rng = np.random.default_rng(abs(hash((w.b, w.hq, w.hkv, w.sq, w.skv, w.d))) % 2**32)
    arrays = []
    for name, heads, seq in (("q", w.hq, w.sq), ("k", w.hkv, w.skv), ("v", w.hkv, w.skv)):
        a = rng.standard_normal((w.b, heads, seq, w.d), np.float32).astype(DTYPES[w.dtype])
        a.tofile(folder / f"{name}.bin")
        arrays.append(a)
    return arrays


def reference(w, q, k, v, max_rows=48):
    """float64 attention for evenly spaced query rows: (rows, (b, hq, rows, d))."""
    rows = np.unique(np.linspace(0, w.sq - 1, min(w.sq, max_rows)).astype(int))
    visible = np.arange(w.skv)[None] <= (rows[:, None] + w.skv - w.sq if w.causal else w.skv)
    out = np.empty((w.b, w.hq, len(rows), w.d))
    for b in range(w.b):
        for g in range(w.hkv):
            kg, vg = k[b, g].astype(np.float64), v[b, g].astype(np.float64)
            for h in range(g * w.hq // w.hkv, (g + 1) * w.hq // w.hkv):
                s = q[b, h, rows].astype(np.float64) @ kg.T / np.sqrt(w.d)
                s = np.where(visible, s, -np.inf)
                p = np.exp(s - s.max(-1, keepdims=True))
                out[b, h] = (p @ vg) / p.sum(-1, keepdims=True)
    return rows, out


def measure(w, peers, args):
    folder = Path(tempfile.mkdtemp(prefix="peers-", dir=args.scratch))
    try:
        inputs = make_inputs(w, folder)
        rows, want = reference(w, *inputs)
        del inputs
        ready, results = [], {}
        for peer in peers:
            try:
                answer = peer.ask(f"load {folder} threads={len(args.cpus)} {w.args()}")
                if answer.startswith("ok"):
                    first = peer.run(1)[0]
                    peer.ask(f"out {folder / 'out.f32'}")
            except RuntimeError as e:
                answer = f"unsupported {e}"
            if answer.startswith("ok"):
                got = np.fromfile(folder / "out.f32", np.float32)
                got = got.reshape(w.b, w.hq, w.sq, w.d)[:, :, rows].astype(np.float64)
                error = got - want
                results[peer.name] = {
                    "max_abs": float(np.abs(error).max()),
                    "rel": float(np.linalg.norm(error) / np.linalg.norm(want)),
                    "note": answer[3:],
                    "first": first,
                    "ns": [],
                    "rounds": [],
                }
                ready.append(peer)
            elif args.verbose:
                print(f"    {peer.name}: {answer}", flush=True)
        if not args.check_only:
            time_rounds(ready, results, args)
        for peer in peers:
            peer.ask("free")
        return results
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def time_rounds(ready, results, args):
    """A B C A B C ...: each turn is one untimed call, then calls for about budget /
    rounds seconds. A call beyond `patience` is not repeated, a peer
    far behind gets two turns."""
    for peer in ready:
        r = results[peer.name]
        if r["first"] > args.patience * 1e9:
            r["ns"] = r["rounds"] = [r["first"]]
        else:
            r["first"] = min(peer.run(2))
    best = min((results[p.name]["first"] for p in ready), default=0)
    for round_ in range(args.rounds):
        for peer in ready:
            r = results[peer.name]
            behind = r["first"] > 10 * best and r["first"] > 2e7
            if r["first"] > args.patience * 1e9 or (behind and round_ >= 2):
                continue
            turn = args.budget / args.rounds * 1e9
            n = int(min(max(turn / r["first"], 1), 2000))
            if r["first"] < 3e8:
                peer.run(1)
            times = peer.run(n)
            r["ns"] += times
            r["rounds"].append(statistics.median(times))


def record(w, name, r, args):
    """What report.py reads; the sizes are in the workload's name."""
    row = {
        "workload": w.name,
        "dtype": w.dtype,
        "threads": len(args.cpus),
        "peer": name,
        "rel": float(f"{r['rel']:.2g}"),
        "correct": r["rel"] < TOLERANCE[w.dtype] * (5 if "q8" in name else 1),
        "note": r["note"],
    }
    if r["ns"]:
        row["ns"] = round(statistics.median(r["rounds"]))
        row["best_ns"] = round(min(r["rounds"]))
        row["spread"] = round(max(r["rounds"]) / min(r["rounds"]), 2)
        row["calls"] = len(r["ns"])
    return row


def print_rows(w, rows, threads):
    rows = sorted(rows, key=lambda row: row.get("ns", math.inf))
    print(f"{w.name} {w.dtype} {threads}T", flush=True)
    for row in rows:
        speed = ""
        if "ns" in row:
            speed = (
                f"{row['ns'] / 1e3:12.1f} us {w.flops / row['ns']:8.1f} GFLOP/s {w.kv_bytes / row['ns']:7.2f} GB/s kv"
                f"  x{row['ns'] / rows[0]['ns']:.2f}  spread {row['spread']:.2f}"
            )
        flag = "" if row["correct"] else "  WRONG"
        print(f"    {row['peer']:<12}{speed}  rel {row['rel']:.1e}{flag}  {row['note']}", flush=True)


def arguments():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--peers", default="*", help="comma separated name patterns")
    p.add_argument("--workloads", default="*", help="comma separated name patterns; !PATTERN leaves out")
    p.add_argument("--dtypes", default="f32,f16,bf16")
    p.add_argument("--threads", default="1,2")
    p.add_argument("--budget", type=float, default=0.35, help="timed seconds for each peer and workload")
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--patience", type=float, default=1.5, help="seconds, the longest call to repeat")
    p.add_argument(
        "--native",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="add a peer: a command that speaks the protocol",
    )
    p.add_argument("--roof", metavar="COMMAND", help="prints what a thread of the machine can do, as a JSON line")
    p.add_argument("--remark", default="", help="what a reader of the figures must know")
    p.add_argument("--out", default="results.jsonl", help="JSON lines, appended to")
    p.add_argument("--scratch", help="folder for the input files (a tmpfs is best)")
    p.add_argument("--check-only", action="store_true", help="correctness, no timing")
    p.add_argument("--list", action="store_true")
    p.add_argument("--verbose", action="store_true", help="say why a peer sits out")
    args = p.parse_args()
    if args.scratch is None and os.path.isdir("/dev/shm"):
        args.scratch = "/dev/shm"
    return args


def chosen(name, patterns):
    patterns = patterns.split(",")
    out = [x[1:] for x in patterns if x.startswith("!")]
    wanted = [x for x in patterns if not x.startswith("!")] or ["*"]
    return any(fnmatch.fnmatch(name, x) for x in wanted) and not any(fnmatch.fnmatch(name, x) for x in out)


def main():
    args = arguments()
    native = dict(item.split("=", 1) for item in args.native)
    commands = {name: command.split() for name, command in native.items()}
    commands |= {name: command for name, command in PEERS.items() if chosen(name, args.peers)}
    work = [w for w in all_workloads() if w.dtype in args.dtypes.split(",") and chosen(w.name, args.workloads)]
    if args.list:
        print("peers:", *commands, "\nworkloads:", *[f"{w.dtype}:{w.name}" for w in work], sep="\n  ")
        return

    def append(*rows):
        with open(args.out, "a") as f:
            f.writelines(json.dumps(row) + "\n" for row in rows)

    cores = sorted(os.sched_getaffinity(0))
    append(machine.describe(args.remark))
    for threads in map(int, args.threads.split(",")):
        args.cpus = set(cores[-threads:])
        if args.roof:
            append(machine.roof(args.roof.split(), args.cpus))
        peers = [Peer(name, command, args.cpus) for name, command in commands.items()]
        for w in work:
            rows = [record(w, name, r, args) for name, r in measure(w, peers, args).items()]
            append(*rows)
            print_rows(w, rows, threads)
        for peer in peers:
            peer.close()
        if args.roof:
            append(machine.roof(args.roof.split(), args.cpus))


if __name__ == "__main__":
    main()
