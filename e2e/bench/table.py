"""Tables of figures, as text and as Markdown."""

from dataclasses import dataclass, field


@dataclass
class Table:
    """Figures of one subject; each row is `(what, ours, peer's, ratio or goal)`."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells):
        self.rows.append(tuple(str(cell) for cell in cells))

    def markdown(self):
        lines = [f"## {self.title}", "", self.note, "", "| " + " | ".join(self.head) + " |", "|" + "---|" * len(self.head)]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"

    def text(self):
        widths = [max(len(row[i]) for row in [self.head, *self.rows]) for i in range(len(self.head))]
        draw = lambda row: "  ".join(cell.ljust(width) for cell, width in zip(row, widths))  # noqa: E731
        return "\n".join([f"\n{self.title}", draw(self.head), *(draw(row) for row in self.rows)])
