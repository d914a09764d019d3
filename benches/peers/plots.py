"""The pictures of a run: a roofline, the lead over each peer by workload, scaling by length."""

import math

from results import DTYPES, OURS, WON
from svg import COLOURS, Svg

ENGINES = {
    OURS: "ours",
    "vllm": "vllm",
    "ov": "openvino",
    "ort": "onnxruntime",
    "torch": "torch",
    "ggml": "ggml",
}


def engine(peer):
    return ENGINES.get(peer.split("-")[0], "other")


def write(results, folder):
    """The files written: (name, alternative text)."""
    images = []

    def add(name, text, picture):
        if picture:
            picture.write(folder / name)
            images.append((name, text))

    for threads in results.threads:
        for dtype in DTYPES:
            text = f"Our time against each peer's by workload: {dtype}, {threads} thread{'s'[: threads > 1]}"
            add(f"lead-{dtype}-{threads}t.svg", text, lead(results, dtype, threads))
    first = results.threads[0]
    add("scaling.svg", "Rates by the length of the prompt or the cache", scaling(results, first))
    add(
        "roofline.svg", "Our rates and those of the best peers below the roofs of the machine", roofline(results, first)
    )
    return images


def byline(results):
    return f"{results.machine['machine']}, {results.machine['date']}" + (
        "; a shared, noisy machine" if "oisy" in results.machine["remark"] else ""
    )


class Log:
    """Positions on a logarithmic axis."""

    def __init__(self, low, high, start, end):
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value):
        value = min(max(value, self.low), self.high)
        return self.start + (self.end - self.start) * math.log(value / self.low) / math.log(self.high / self.low)


def legend(svg, x, y, names):
    for name in names:
        svg.circle(x, y - 4, 4.5, name)
        text = name if name != "other" else "other engines"
        svg.text(x + 9, y, text, "small")
        x += 28 + 6.1 * len(text)


def engines_of(cells):
    found = {engine(peer) for cell in cells for peer in cell.rows}
    return [name for name in COLOURS if name in found]


def lead(results, dtype, threads):
    """A row for each workload: a bar to the best peer, a dot for each; right of 1 is slower than ours."""
    cells = [cell for cell in results.of(dtype, threads) if cell.lead]
    if not cells:
        return None
    groups = list(dict.fromkeys(cell.group for cell in cells))
    row, width, left, right = 15, 900, 215, 745
    height = 112 + row * len(cells) + 24 * len(groups)
    svg = Svg(
        width,
        height,
        f"Time of each peer by ours: {dtype}, {threads} thread{'s'[: threads > 1]}",
        f"Right of 1: slower than ours. The bar ends at the fastest peer. {byline(results)}",
    )
    legend(svg, 24, 70, [name for name in engines_of(cells) if name != OURS])
    x = Log(0.25, 16, left, right)
    top, bottom = 84, height - 22
    for tick in (0.25, 0.5, 1, 2, 4, 8, 16):
        kind = "ink-line" if tick == 1 else "grid-line"
        svg.line([(x(tick), top), (x(tick), bottom)], kind)
        svg.text(x(tick), bottom + 14, f"{tick:g}×" + "+" * (tick == 16), "small faint", "middle")
    y = top
    for group in groups:
        svg.text(20, y + 16, group, "bold small")
        y += 24
        for cell in (cell for cell in cells if cell.group == group):
            lead_row(svg, x, y, cell)
            y += row
    return svg


def lead_row(svg, x, y, cell):
    middle, won = y + 3, cell.lead >= WON
    svg.text(207, y + 7, cell.workload.name, "small", "end")
    a, b = sorted((x(1), x(cell.lead)))
    svg.rect(a, middle - 5, max(b - a, 1), 10, "won" if won else "lost", radius=2)
    for peer in reversed(cell.peers):
        ratio = peer["ns"] / cell.ours["ns"]
        svg.circle(x(ratio), middle, 3.4, engine(peer["peer"]), f"{peer['peer']} {ratio:.2f}")
    svg.text(757, y + 7, f"{cell.lead:.2f}×", "small bold")
    svg.text(797, y + 7, cell.best["peer"], "small faint")


def scaling(results, threads):
    """Llama 8B's heads: GFLOP/s by the prompt's length, GB/s by the cache's."""
    panels = [(dtype, decode) for decode in (False, True) for dtype in DTYPES]
    found = {panel: series(results, *panel, threads) for panel in panels}
    if not any(found.values()):
        return None
    wide, high = 270, 210
    svg = Svg(
        60 + 3 * (wide + 20),
        120 + 2 * (high + 60),
        f"Rates by length: 32 query heads on 8 KV heads of 128, {threads} thread{'s'[: threads > 1]}",
        f"Above: causal prompts; below: decoding. {byline(results)}",
    )
    names = [name for name in COLOURS if any(name in lines for lines in found.values())]
    legend(svg, 24, 70, names)
    for i, panel in enumerate(panels):
        left, top = 56 + i % 3 * (wide + 20), 100 + i // 3 * (high + 60)
        scaling_panel(svg, results, panel, found[panel], (left, top, wide - 40, high - 20))
    return svg


def series(results, dtype, decode, threads):
    """For each engine the best of its peers at each length."""
    lines = {}
    for cell in results.of(dtype, threads):
        w = cell.workload
        if w.shape != "llama8b" or not w.causal or w.b > 1 or cell.decode != decode:
            continue
        for peer, row in cell.rows.items():
            if row["correct"]:
                line = lines.setdefault(engine(peer), {})
                line[w.skv] = max(line.get(w.skv, 0), cell.rate(row))
    return lines


def limits(results, dtype, decode):
    cells = [c for c in results.of(dtype, results.threads[0]) if c.decode == decode and c.workload.shape == "llama8b"]
    limits = {c.workload.skv: results.limit(c)[0] for c in cells if c.workload.causal and c.workload.b == 1}
    return {n: limit for n, limit in limits.items() if limit}


def scaling_panel(svg, results, panel, lines, place):
    (dtype, decode), (left, top, width, height) = panel, place
    svg.text(left, top - 8, f"{dtype}, {'GB/s of K and V' if decode else 'GFLOP/s'}", "small bold")
    lengths = sorted({n for line in lines.values() for n in line})
    if not lengths:
        return
    roof = limits(results, dtype, decode)
    most = max([rate for line in lines.values() for rate in line.values()] + list(roof.values()))
    step = next(s for s in (2, 5, 10, 20, 50, 100, 200, 500, 1000) if most / s <= 6)
    high = step * math.ceil(most * 1.02 / step)
    x = Log(lengths[0], max(lengths[-1], lengths[0] * 2), left + 12, left + width - 6)
    y = lambda rate: top + height * (1 - rate / high)  # noqa: E731
    for tick in range(0, high + 1, step):
        svg.line([(left, y(tick)), (left + width, y(tick))], "grid-line")
        svg.text(left - 5, y(tick) + 4, str(tick), "small faint", "end")
    for n in lengths:
        svg.text(x(n), top + height + 15, f"{n:,}", "small faint", "middle")
    if roof:
        points = [(x(n), y(rate)) for n, rate in sorted(roof.items())]
        svg.line(points, "faint-line dash")
        name = "roof" if decode else "f32 multiply-add peak"
        svg.text(points[-1][0], points[-1][1] - 5, name, "small faint", "end")
    for name in reversed([name for name in COLOURS if name in lines]):
        points = [(x(n), y(rate)) for n, rate in sorted(lines[name].items())]
        svg.line(points, f"{name}-line" + " thick" * (name == OURS))
        for (n, rate), (px, py) in zip(sorted(lines[name].items()), points):
            svg.circle(px, py, 3.6 if name == OURS else 2.6, name, f"{name}, {n}: {rate:.3g}")


def roofline(results, threads):
    roof = results.roofs.get(threads)
    if not roof:
        return None
    wide, high = 285, 300
    svg = Svg(
        60 + 3 * (wide + 10),
        high + 140,
        f"Roofline, {threads} thread{'s'[: threads > 1]}: GFLOP/s by operations a byte of Q, K, V and output",
        f"A grey mark is the fastest peer on the same workload. {byline(results)}",
    )
    legend(svg, 24, 70, [OURS])
    svg.text(
        80,
        70,
        "circle: prompt, diamond: decoding; dashed: reading the nearest cache measured; below it, memory",
        "small faint",
    )
    for i, dtype in enumerate(DTYPES):
        roofline_panel(svg, results, roof, dtype, threads, (56 + i * (wide + 10), 104, wide - 30, high - 20))
    return svg


def roofline_panel(svg, results, roof, dtype, threads, place):
    left, top, width, height = place
    peak = roof["fma_f32_gflops"]
    rates = [c.workload.flops / row["ns"] for c in results.of(dtype, threads) for row in (c.ours, c.best) if row]
    high = 2 ** math.ceil(math.log2(max([peak * 1.1, *rates])))
    x = Log(0.5, 2048, left, left + width)
    y = Log(4, high, top + height, top)
    svg.text(left, top - 8, dtype, "small bold")
    tick = 4
    while tick <= high:
        svg.line([(left, y(tick)), (left + width, y(tick))], "grid-line")
        svg.text(left - 5, y(tick) + 4, str(tick), "small faint", "end")
        tick *= 4
    for tick in (1, 8, 64, 512):
        svg.line([(x(tick), top), (x(tick), top + height)], "grid-line")
        svg.text(x(tick), top + height + 15, str(tick), "small faint", "middle")
    reads = sorted(roof["read_gbs"].values())
    for gbs in (reads[0], reads[-1]):
        start = max(0.5, 1 / gbs)
        svg.line([(x(start), y(start * gbs)), (x(peak / gbs), y(peak))], "faint-line" + " dash" * (gbs != reads[0]))
    svg.line([(x(peak / reads[-1]), y(peak)), (left + width, y(peak))], "faint-line")
    svg.text(left + width, top - 8, f"f32 peak {peak:.0f}", "small faint", "end")
    for cell in results.of(dtype, threads):
        w = cell.workload
        size = w.kv_bytes // (2 * w.b * w.hkv * w.skv * w.d)
        at = x(w.flops / (w.kv_bytes + 2 * size * w.b * w.hq * w.sq * w.d))
        for row, kind, radius in ((cell.best, "other", 3), (cell.ours, OURS, 3.6)):
            if row:
                rate = w.flops / row["ns"]
                mark = svg.diamond if cell.decode else svg.circle
                mark(at, y(rate), radius, kind, f"{w.name}: {row['peer']} {rate:.3g}")
