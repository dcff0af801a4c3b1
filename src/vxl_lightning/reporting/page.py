"""A report's page: its template filled in, with everything that it needs inside it."""

import json
from pathlib import Path
from typing import Any

from vxl_lightning.data.files import published


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write ``path``, complete or not at all: one file that opens anywhere, offline.

    Args:
        template: file name in this folder, such as ``report.html.jinja``; all of them extend ``base.html.jinja``, which
            needs ``name``, the page's title.
        values: what the template shows. Text is escaped; a value goes into a script through the filter ``embedded``.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("vxl_lightning", "reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["embedded"] = lambda value: Markup(embedded(value))
    plotly_js = Markup(get_plotlyjs().replace("</script", "<\\/script"))
    html = environment.get_template(template).render(plotly_js=plotly_js, **values)
    with published(path) as temporary:
        # Lone surrogates, which JSON can spell and UTF-8 cannot, become question marks.
        temporary.write_text(html, encoding="utf-8", errors="replace")


def embedded(value: Any) -> str:
    """``value`` as JSON that can stand in a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
