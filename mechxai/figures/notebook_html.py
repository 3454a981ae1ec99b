"""HTML that is text to a program and a picture to a notebook."""

import html


class Fragment(str):
    """A piece of a page; notebooks show it where it is returned."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)


class Page(str):
    """A whole page; notebooks show it in a frame of its own, so that its scripts and styles stay inside."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        inside = html.escape(str(self), quote=True)
        return f'<iframe srcdoc="{inside}" sandbox="allow-scripts" style="width:100%;height:720px;border:0"></iframe>'
