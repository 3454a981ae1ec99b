"""The interface of edits: take the activation at a site and return the new one, out of place."""

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol, final, runtime_checkable

from torch import Tensor

from mechxai.core.shapes import Activation, Rows
from mechxai.core.site import Site


@runtime_checkable
class Source(Protocol):
    """Activations by site, one row per prompt: `Activations`, or a run that the engine has yet to make."""

    def __getitem__(self, site: Site, /) -> Tensor:
        """The activation at ``site``."""
        ...

    def rows(self, chosen: Rows) -> "Source":
        """The activations of some prompts."""
        ...


class Edit(ABC):
    """An edit; calling it returns the new activation and leaves the old one alone.

    A new edit only needs ``__call__``. It derives from `PerPromptEdit` if it stores a value per prompt, and from
    `ReplacingEdit` if its new values do not depend on the activation, which lets the engine skip the call.

    Attributes:
        positionwise: whether it treats every position by itself, so that the engine may pass it only some of them.
            False is always correct, and slower: the edit then sees whole rows.
    """

    positionwise: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, activation: Activation, site: Site) -> Activation:
        """The new activation, in the shape of the old."""

    @final
    def rows(self, chosen: Rows) -> "Edit":
        """The same edit for some prompts of the batch it was made for."""
        return self.select(chosen) if isinstance(self, PerPromptEdit) else self

    @final
    def replacement(self, site: Site) -> Tensor | None:
        """The values that replace any activation, or None when the new values depend on the activation.

        Args:
            site: the site to edit.

        Returns:
            Values that broadcast to ``[batch, *axes]`` of the whole site, or None.
        """
        return self.replacement_at(site) if isinstance(self, ReplacingEdit) else None


class PerPromptEdit(Edit):
    """An edit that stores a value per prompt."""

    @abstractmethod
    def select(self, chosen: Rows) -> Edit:
        """The edit for some prompts."""


class ReplacingEdit(Edit):
    """An edit whose new values do not depend on the activation."""

    @abstractmethod
    def replacement_at(self, site: Site) -> Tensor | None:
        """Values that broadcast to ``[batch, *axes]`` of the whole site; None where they are not all at hand."""
