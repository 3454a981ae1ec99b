"""`cached_property` without a lock: Python 3.11's holds one per class, which deadlocks with the models' own locks."""

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from functools import cached_property as cached_property  # noqa: TID251 - as above
else:

    class cached_property(functools.cached_property):  # noqa: N801, TID251 - stands for functools'
        """A value computed on first access and stored in the object, as of Python 3.12's ``functools``.

        Two threads may both compute it; the models' locks keep passes apart.
        """

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            if instance is None:
                return self
            values = instance.__dict__
            if self.attrname not in values:
                values[self.attrname] = self.func(instance)
            return values[self.attrname]
