"""Draws the stack's resources as a picture: components as boxes in boxes, with the objects that each declares. `python
-m tests.iac.picture` writes it; a test compares.
"""

import html
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from tests.iac.kit import ROOT, Graph, mesh_graph

FILE: Final = ROOT / "components" / "resources.svg"
LINE, PAD, WIDTH, GAP = 16, 10, 300, 12
COLOURS: Final = ("#f6f8fa", "#eaf2fb", "#fdf6e3", "#eef8ee")


@dataclass(slots=True)
class Box:
    """A component."""

    title: str
    objects: Counter[str] = field(default_factory=Counter)
    inner: list["Box"] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What it declares itself."""
        return [f"{kind} × {count}" if count > 1 else kind for kind, count in sorted(self.objects.items())]


def boxes(graph: Graph) -> Box:
    """The tree of components, each with the kinds of what it declares."""
    root = Box("Stack")
    by_chain: dict[str, Box] = {}
    for each in graph.resources:
        chain = each.parent.split("::")[2] if each.parent else ""
        parent = by_chain.get(f"{chain}::{each.parent.rpartition('::')[2]}", root)
        kind = each.type.rpartition(":")[2]
        if each.type.startswith("tulle:index:"):
            box = Box(kind if kind != "ControlWorkload" else f"ControlWorkload {each.name.rpartition('-')[2]}")
            parent.inner.append(box)
            urn = next(urn for urn, name in graph.urns.items() if name == each.name and urn.endswith(f"::{each.name}")
                       and urn.split("::")[2].endswith(each.type))  # fmt: skip
            by_chain[f"{urn.split('::')[2]}::{each.name}"] = box
        elif each.parent and not each.type.startswith("pulumi:providers"):
            parent.objects[kind] += 1
    for box in (root, *by_chain.values()):
        # Registrations arrive in any order.
        box.inner.sort(key=lambda inner: inner.title)
    return root


def height(box: Box) -> int:
    """How tall a box is drawn."""
    own = PAD * 2 + LINE * (1 + len(box.lines()))
    return own + sum(height(inner) + GAP for inner in box.inner)


def draw(box: Box, x: int, y: int, width: int, depth: int) -> list[str]:
    """A box, its words, and the boxes in it."""
    colour = COLOURS[depth % len(COLOURS)]
    parts = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height(box)}" rx="6" fill="{colour}" stroke="#8a94a0"/>',
        f'<text x="{x + PAD}" y="{y + PAD + 12}" font-weight="bold">{html.escape(box.title)}</text>',
    ]
    top = y + PAD + LINE
    for line in box.lines():
        top += LINE
        parts.append(f'<text x="{x + PAD}" y="{top - 4}" fill="#46505c">{html.escape(line)}</text>')
    top += PAD // 2
    for inner in box.inner:
        parts += draw(inner, x + PAD, top, width - 2 * PAD, depth + 1)
        top += height(inner) + GAP
    return parts


def picture(graph: Graph) -> str:
    """The whole mesh as SVG, its parts side by side."""
    (mesh,) = boxes(graph).inner
    columns: list[list[Box]] = [[], [], []]
    for part in mesh.inner:
        min(columns, key=lambda column: sum(height(box) + GAP for box in column)).append(part)
    tall = max(sum(height(box) + GAP for box in column) for column in columns)
    top = PAD * 2 + LINE * (1 + len(mesh.lines()))
    full = (WIDTH + GAP) * len(columns) + GAP
    size = f'width="{full}" height="{top + tall}" viewBox="0 0 {full} {top + tall}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        f'<rect width="{full}" height="{top + tall}" rx="8" fill="#ffffff" stroke="#8a94a0"/>',
        f'<text x="{GAP}" y="{PAD + 12}" font-weight="bold">Mesh</text>',
    ]
    for number, line in enumerate(mesh.lines(), start=1):
        parts.append(f'<text x="{GAP}" y="{PAD + 12 + LINE * number}" fill="#46505c">{html.escape(line)}</text>')
    for number, column in enumerate(columns):
        y = top
        for box in column:
            parts += draw(box, GAP + number * (WIDTH + GAP), y, WIDTH, 1)
            y += height(box) + GAP
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Write the picture."""
    FILE.write_text(picture(mesh_graph("local")))


if __name__ == "__main__":
    main()
