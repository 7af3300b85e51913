"""Tables that results show in Jupyter."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape


def html_table(rows: Mapping[str, object], caption: str = "") -> str:
    """Return an HTML table with a heading and a value in every row.

    Example:
        >>> html_table({"inductive": "95.39% ± 0.09"})
        '<table><tr><th>inductive</th><td>95.39% ± 0.09</td></tr></table>'
    """
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows.items())
    return f"<table>{f'<caption>{escape(caption)}</caption>' if caption else ''}{body}</table>"
