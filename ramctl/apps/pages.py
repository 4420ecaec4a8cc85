"""Templates of all pages.

A page is one file that needs no network: it loads no fonts, scripts or photos from elsewhere.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """A template of `templates/` filled with these values, which are escaped for HTML."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> "Environment":
    # Not at the top: most runs of `export` write no page.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("ramctl.apps.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
