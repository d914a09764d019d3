"""Writes the tables and plots of a run: report.py RESULTS.jsonl FOLDER."""

import sys
from collections import defaultdict
from pathlib import Path

import plots
from results import DTYPES, WON, Results, geometric_mean


def time_text(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns / 1e3:.3g} µs"


def table(head, rows):
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines) + "\n"


def counted(n):
    return f"{n} thread{'s'[: n > 1]}"


def origin(results):
    m = results.machine
    vectors = ", ".join(m["vectors"])
    text = (
        f"{m['machine']} ({m['cpus']} CPUs; {vectors}), {m['date']}, load average {m['load']} at the start:\n\n"
        f"```sh\n{m['command']}\n```\n"
    )
    return text + (f"\n**{m['remark']}**\n" if m["remark"] else "")


def summary(results):
    """For the README: how many times as fast as the best peer."""
    parts = []
    for threads in results.threads:
        groups = defaultdict(lambda: defaultdict(list))
        for cell in results.cells:
            if cell.threads == threads and cell.lead:
                groups[cell.group][cell.workload.dtype].append(cell)
        dtypes = [d for d in DTYPES if any(d in by for by in groups.values())]
        rows = [[name, *(lead_text(by[d]) for d in dtypes)] for name, by in groups.items()]
        every = defaultdict(list)
        for by in groups.values():
            for d, cells in by.items():
                every[d] += cells
        rows.append(["**all**", *(lead_text(every[d]) for d in dtypes)])
        parts.append(f"{counted(threads)}:\n\n" + table(["workloads", *dtypes], rows))
    return (
        "Time of the fastest correct peer by ours: the geometric mean, the worst workload, and how many are lost\n"
        f"(below {WON}, as a smaller lead is a tie).\n\n" + "\n".join(parts)
    )


def lead_text(cells):
    if not cells:
        return ""
    leads = [cell.lead for cell in cells]
    lost = sum(lead < WON for lead in leads)
    text = f"{geometric_mean(leads):.2f} (worst {min(leads):.2f}"
    return text + (f"; **{lost} of {len(leads)} lost**)" if lost else f"; all {len(leads)} won)")


def lost(results):
    cells = sorted((c for c in results.cells if c.lead and c.lead < WON), key=lambda c: c.lead)
    rows = [
        [c.workload.name, c.workload.dtype, str(c.threads), f"{c.lead:.2f}", c.best["peer"], time_text(c.best["ns"])]
        + [time_text(c.ours["ns"]), f"{c.best['best_ns'] / c.ours['best_ns']:.2f}"]
        for c in cells
    ]
    head = ["workload", "storage", "threads", "lead", "best peer", "its time", "ours", "lead of the best rounds"]
    return table(head, rows) if rows else "None.\n"


def every_workload(results):
    parts = []
    for threads in results.threads:
        for dtype in DTYPES:
            cells = results.of(dtype, threads)
            rows = []
            for cell in cells:
                limit, name = results.limit(cell)
                ours, peers = cell.ours, cell.peers
                share = f"{100 * cell.rate(ours) / limit:.0f} % of {name}" if ours and limit else ""
                rows.append(
                    [cell.workload.name]
                    + ([time_text(ours["ns"]), f"{cell.rate(ours):.3g}", share] if ours else [""] * 3)
                    + [lead_mark(cell)]
                    + [f"{row['peer']} {time_text(row['ns'])}" for row in peers[:3]]
                    + [""] * (3 - len(peers[:3]))
                )
            if rows:
                head = ["workload", "ours", "rate", "share of the roof", "lead", "best peer", "second", "third"]
                parts.append(f"### {dtype}, {counted(threads)}\n\n" + table(head, rows))
    return "\n".join(parts)


def lead_mark(cell):
    if not cell.lead:
        return ""
    return f"{cell.lead:.2f}" if cell.lead >= WON else f"**{cell.lead:.2f} lost**"


def roofs(results):
    threads = sorted(results.roofs)
    names = {"fma_f32_gflops": "f32 multiply-adds", "fma_bf16_gflops": "bf16 pairs into f32 by vectors"}
    rows = [
        [f"{name}, GFLOP/s", *(f"{results.roofs[t][key]:.0f}" for t in threads)]
        for key, name in names.items()
        if all(results.roofs[t][key] for t in threads)
    ]
    for size in results.roofs[threads[0]]["read_gbs"] if threads else []:
        name = f"reading {int(size) / 2**20:g} MiB a thread, GB/s"
        rows.append([name, *(f"{results.roofs[t]['read_gbs'][size]:.0f}" for t in threads)])
    return table(["", *map(counted, threads)], rows)


def errors(results):
    worst, wrong, notes = defaultdict(float), defaultdict(int), {}
    for cell in results.cells:
        for peer, row in cell.rows.items():
            key = peer, cell.workload.dtype
            worst[key] = max(worst[key], row["rel"])
            wrong[key] += not row["correct"]
            notes.setdefault(peer, row["note"])
    rows = []
    for peer in notes:
        texts = []
        for dtype in DTYPES:
            key = peer, dtype
            texts.append(
                (f"{worst[key]:.1e}" + (f", {wrong[key]} wrong" if wrong[key] else "")) if key in worst else ""
            )
        rows.append([peer, *texts, notes[peer]])
    return table(["peer", *DTYPES, "note"], rows)


def document(results, images):
    pictures = "\n".join(f"![{alt}]({name})\n" for name, alt in images)
    return f"""# Against other CPU kernels

{origin(results)}
How it is measured: [`benches/peers/`](../../benches/peers/README.md).

## Summary

{summary(results)}
{pictures}
## Lost

{lost(results)}
## What the machine can do

The best of the readings before and after; the threads measure at the same time.

{roofs(results)}
## Every workload

Medians of the rounds' medians. The rate is GFLOP/s for prompts, GB/s of K and V for decoding; its roof the f32
multiply-adds, or for decoding the reading of as much memory again and again, if that is lower. A bf16 matrix unit goes beyond
the f32 roof.

{every_workload(results)}
## Errors

The norm of the error by that of the output against f64, the worst of the workloads. Wrong is beyond 2e-5 (f32), 4e-3 (f16),
2e-2 (bf16); what is wrong is no one's best.

{errors(results)}"""


def main():
    path, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    results = Results(path)
    images = plots.write(results, folder)
    text = document(results, images)
    (folder / "README.md").write_text(text)
    print(summary(results))


if __name__ == "__main__":
    main()
