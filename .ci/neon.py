#!/usr/bin/env python3
"""The inner loops of the NEON level, by the assembly of the library and of an example: python3 .ci/neon.py FILE.s...

Fails if one of them keeps a vector on the stack, takes more instructions than it did, or converts halves otherwise than by
vectors. Prints what llvm-mca estimates for two cores; a Cortex-A76 is by LLVM's model of the Neoverse N1, which is the same
core for servers (its entry for the A76 is the model of the A57, which has half the multiply-add units).
"""

import re
import subprocess
import sys

CORES = {"Cortex-A76": ("neoverse-n1", 2), "Apple": ("apple-m1", 3)}
ROUNDS = 200

# What the loop does, the function, what its name must match, what its loop must have, instructions for a multiply-add at most.
HALF, BRAIN = "half8binary163f16", "half6bfloat4bf16"
LOOPS = [
    ("prompt, f32: scores, 6 keys × 4 vectors", "6scores8products", "Neonf.*Kj6_Kj4_", "fmla", 1.6),
    ("prompt, f32: values, 6 columns × 4 vectors", "6values10accumulate", "Neonf.*Kj6_Kj4_Kb0_", "fmla", 1.4),
    ("decode, f32: 4 keys × 4 rows", "3few6scores8products", "NeonfE", "fmla", 1.9),
    ("decode, f16: 4 keys × 4 rows", "3few6scores8products", HALF, "fcvtl", 2.3),
    ("decode, bf16: 4 keys × 4 rows", "3few6scores8products", BRAIN, "shll", 2.3),
    ("decode, f32: values for 4 rows", "3few6values10accumulate", "NeonfE", "fmla", 1.6),
    ("decode, f16: values for 4 rows", "3few6values10accumulate", HALF, "fcvtl", 1.9),
    ("decode, bf16: values for 4 rows", "3few6values10accumulate", BRAIN, "shll", 1.9),
]


def functions(path):
    """The name and the lines of each function."""
    name, lines = None, []
    for line in open(path):
        line = line.rstrip()
        if match := re.match(r"(_R\w+):", line):
            name, lines = match[1], []
        elif line.startswith(".Lfunc_end"):
            if name:
                yield name, lines
            name = None
        else:
            lines.append(line)


def inner_loops(lines):
    """The instructions of each loop that has none inside."""
    labels = {line.split(":")[0]: at for at, line in enumerate(lines) if line.startswith(".L")}
    ends = {}
    for at, line in enumerate(lines):
        match = re.match(r"\t(?:b|b\.\w+|cbn?z|tbn?z)\t.*?(\.L\w+)$", line)
        if match and labels.get(match[1], at) < at:
            ends[labels[match[1]]] = at
    for first, last in ends.items():
        if not any(first < start and end <= last for start, end in ends.items()):
            yield [line for line in lines[first : last + 1] if re.match(r"\t[a-z]", line)]


def hottest(file, function, named):
    """Of the plain loops of a function (those of hidden values select), the one with the most multiply-adds."""
    loops = [
        loop
        for name, lines in file
        if function in name and "Neon" in name and re.search(named, name)
        for loop in inner_loops(lines)
        if not any(re.match(r"\t(bsl|bit|bif|fcm\w\w|cm[lg][te])\b", line) for line in loop)
    ]
    return max(loops, key=lambda loop: sum("fmla" in line for line in loop), default=[])


def estimate(loop, core):
    """Cycles of a round."""
    command = ["llvm-mca-19", "-mtriple=aarch64-linux-gnu", f"-mcpu={core}", f"-iterations={ROUNDS}"]
    said = subprocess.run(command, input="\n".join(loop), capture_output=True, text=True, check=True).stdout
    return int(re.search(r"Total Cycles:\s+(\d+)", said)[1]) / ROUNDS


def main():
    file = [function for path in sys.argv[1:] for function in functions(path)]
    wrong = []
    print("| loop | multiply-adds | instructions |", " | ".join(f"{core}: cycles, of its peak" for core in CORES), "|")
    print("|---|---|---|" + "---|" * len(CORES))
    for what, function, named, needed, most in LOOPS:
        loop = hottest(file, function, named)
        macs = sum("fmla" in line for line in loop)
        if macs < 8:
            wrong.append(f"{what}: no such loop")
            continue
        cells = []
        for core, units in CORES.values():
            cycles = estimate(loop, core)
            cells.append(f"{cycles:.1f}, {100 * macs / units / cycles:.0f} %")
        print(f"| {what} | {macs} | {len(loop)} |", " | ".join(cells), "|")
        if any(re.match(r"\t(ld|st)\w+\s+\{?[qv].*\[sp", line) for line in loop):
            wrong.append(f"{what}: a vector lies on the stack")
        if len(loop) > most * macs:
            wrong.append(f"{what}: {len(loop)} instructions for {macs} multiply-adds")
        if not any(needed in line for line in loop):
            wrong.append(f"{what}: no {needed}")
        if "prompt" in what and sum(bool(re.search(r"fmla.*\.s\[", line)) for line in loop) < macs * 3 // 4:
            wrong.append(f"{what}: multiply-adds are not by element")
    narrows = sum("\tfcvtn\t" in line for _, lines in file for line in lines)
    if narrows == 0:
        wrong.append("no fcvtn: halves are not narrowed by vectors")
    for reason in wrong:
        print(reason, file=sys.stderr)
    sys.exit(bool(wrong))


main()
