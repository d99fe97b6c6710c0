"""For mkdocs: marks what a line must not break, a name in code and a number in a table, for stylesheets/extra.css.

A browser breaks at hyphens, as in --no-normalize and 4e-07. Longer code goes on in the next line as text does.
"""

from __future__ import annotations

import html
import re
from typing import Any

NAME = 30  # characters: no name is wider than a telephone
NUMBER = 12


def on_page_content(content: str, **_: Any) -> str:
    """The page's HTML with the class "whole" where it is short."""
    parts = re.split(r"(<pre\b.*?</pre>)", content, flags=re.DOTALL)
    parts[::2] = [_marked(part) for part in parts[::2]]
    return "".join(parts)


def _marked(part: str) -> str:
    part = re.sub(r"<code>([^<]*)</code>", lambda found: _whole("code", found[1], NAME), part)
    return re.sub(r"<td>([^<\s]*\d[^<\s]*)</td>", lambda found: _whole("td", found[1], NUMBER), part)


def _whole(tag: str, text: str, most: int) -> str:
    marked = f'{tag} class="whole"' if len(html.unescape(text)) <= most else tag
    return f"<{marked}>{text}</{tag}>"
