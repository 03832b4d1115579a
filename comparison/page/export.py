"""Write the figures of a page as files: SVG for the web, PDF for a paper."""

import re
from collections.abc import Sequence
from pathlib import Path

from backbones.core.files import save_atomic, save_text
from comparison.page.figures import BASELINE_COLOUR, Figure

FIGURES = "figures"
# The page's style sheet gives its figures colours of the reader's scheme; a file has those of paper.
_STYLE = (
    "text{font:12px 'DejaVu Sans','Helvetica Neue',Arial,sans-serif;fill:#1c2126}.t{font-weight:600;font-size:13px}"
    ".k{font-size:10.5px;fill:#57606a}.grid{stroke:#d9dee4}.zero{stroke:#57606a}.halo{stroke:#fff;fill:none}"
    ".whisker{stroke:#1c2126;fill:none}"
)


def save_figures(folder: Path, figures: Sequence[Figure]) -> None:
    """Write every figure as NAME.svg and NAME.pdf; figures of an earlier call that are not among them are removed.

    Raises:
        InputError: a file cannot be written.
    """
    import vl_convert  # slow

    written = set()
    for figure in figures:
        stem = re.sub(r"[^A-Za-z0-9._+-]+", "_", figure.name).strip("-_")
        text = standalone(figure.svg)
        save_text(folder / f"{stem}.svg", text)
        content = vl_convert.svg_to_pdf(text)
        save_atomic(folder / f"{stem}.pdf", lambda path, content=content: path.write_bytes(content), content)
        written |= {f"{stem}.svg", f"{stem}.pdf"}
    for path in [*folder.glob("*.svg"), *folder.glob("*.pdf")]:
        if path.name not in written:
            path.unlink()


def standalone(svg: str) -> str:
    """Return a figure of the page with its own size and style."""
    box = re.search(r'viewBox="0 0 (\S+) (\S+)"', svg)
    assert box, svg[:80]
    text = svg.replace("currentColor", BASELINE_COLOUR).replace("var(--page)", "#ffffff")
    text = text.replace("<svg ", f'<svg width="{box[1]}" height="{box[2]}" ', 1)
    return re.sub(r"(<svg[^>]*>)", lambda match: f"{match[1]}<style>{_STYLE}</style>", text, count=1)
