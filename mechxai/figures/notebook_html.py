"""Strings of HTML that notebooks display."""

import html


class Fragment(str):
    """Part of an HTML page, such as a paragraph; a notebook displays it in place."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)


class Page(str):
    """A complete HTML page; a notebook displays it in an iframe, which isolates its scripts and styles."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        source = html.escape(str(self), quote=True)
        return f'<iframe srcdoc="{source}" sandbox="allow-scripts" style="width:100%;height:720px;border:0"></iframe>'
