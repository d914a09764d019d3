"""A small SVG writer: marks by class, colours that follow the reader's light or dark mode."""

from html import escape

# The colours of engines, in light and in dark mode.
COLOURS = {
    "ours": ("#c2255c", "#ff6b9d"),
    "vllm": ("#1971c2", "#4dabf7"),
    "openvino": ("#6741d9", "#b197fc"),
    "onnxruntime": ("#2f9e44", "#69db7c"),
    "torch": ("#e8590c", "#ffa94d"),
    "ggml": ("#0b7285", "#3bc9db"),
    "other": ("#868e96", "#909296"),
}
# Paper, ink, faint ink, grid, and the bars of what is won and lost.
PAPER = {
    "paper": ("#ffffff", "#0d1117"),
    "ink": ("#1f2328", "#e6edf3"),
    "faint": ("#59636e", "#9198a1"),
    "grid": ("#d9dee3", "#30363d"),
    "won": ("#b2e3bd", "#1f5130"),
    "lost": ("#ffc9c9", "#6b2229"),
}


def style():
    def colours(mode):
        rules = [f"--{name}:{pair[mode]}" for name, pair in (COLOURS | PAPER).items()]
        return ":root{" + ";".join(rules) + "}"

    shapes = "".join(
        f".{name}{{fill:var(--{name})}}.{name}-line{{stroke:var(--{name});fill:none}}" for name in (COLOURS | PAPER)
    )
    return (
        f"<style>{colours(0)}@media(prefers-color-scheme:dark){{{colours(1)}}}{shapes}"
        "text{font:12px system-ui,-apple-system,Segoe UI,Helvetica,Arial,sans-serif;fill:var(--ink)}"
        "text.small{font-size:10.5px}text.faint{fill:var(--faint)}text.title{font-size:15px;font-weight:600}"
        "text.bold{font-weight:600}.dash{stroke-dasharray:5 4}.thick{stroke-width:2.2}"
        "</style>"
    )


def number(x):
    return f"{x:.1f}".removesuffix(".0")


class Svg:
    def __init__(self, width, height, title, subtitle=""):
        self.size = f"{number(width)} {number(height)}"
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.size}" width="{number(width)}" role="img">',
            f"<title>{escape(title)}</title>",
            style(),
        ]
        self.rect(0.5, 0.5, width - 1, height - 1, "paper", radius=8)
        self.text(20, 28, title, "title")
        if subtitle:
            self.text(20, 46, subtitle, "faint small")

    def rect(self, x, y, width, height, kind, radius=0):
        corner = f' rx="{radius}"' if radius else ""
        place = " ".join(
            f'{k}="{number(v)}"' for k, v in zip(("x", "y", "width", "height"), (x, y, width, height), strict=True)
        )
        self.parts.append(f'<rect {place} class="{kind}"{corner}/>')

    def line(self, points, kind):
        path = "L".join(f"{number(x)} {number(y)}" for x, y in points)
        self.parts.append(f'<path d="M{path}" class="{kind}"/>')

    def circle(self, x, y, radius, kind, hint=""):
        self.mark(f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radius)}" class="{kind}"', "circle", hint)

    def diamond(self, x, y, radius, kind, hint=""):
        r = number(radius)
        path = f"M{number(x)} {number(y - radius)}l{r} {r}l-{r} {r}l-{r} -{r}z"
        self.mark(f'<path d="{path}" class="{kind}"', "path", hint)

    def mark(self, start, name, hint):
        self.parts.append(f"{start}><title>{escape(hint)}</title></{name}>" if hint else f"{start}/>")

    def text(self, x, y, text, kind="", anchor="start"):
        kind = f' class="{kind}"' if kind else ""
        side = f' text-anchor="{anchor}"' if anchor != "start" else ""
        self.parts.append(f'<text x="{number(x)}" y="{number(y)}"{kind}{side}>{escape(text)}</text>')

    def write(self, path):
        path.write_text("\n".join([*self.parts, "</svg>", ""]))
