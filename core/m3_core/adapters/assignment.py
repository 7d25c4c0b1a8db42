"""Assigning fields of the frameworks' adapters: checked, in effect at once, whole for threads."""

from __future__ import annotations

import threading
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import Self

from m3_core.forks import survive_forks, whole_in_forks


class _Locks:
    def __init__(self) -> None:
        self.after_fork()
        survive_forks(self)

    def after_fork(self) -> None:
        # One assignment at a time in the whole process: the second shall see what the first has
        # changed.
        self.assigning = threading.RLock()
        # Held while an assignment becomes visible, and while an object is copied for a call.
        self.showing = threading.Lock()


_locks = _Locks()


class Assignable(BaseModel):
    """Fields that users assign after construction.

    A value is checked as the constructor checks it, and counts from the next call on; what is
    running keeps what it began with. Frozen fields are those that another model would have to be
    loaded for. If anything fails, the object is as it was.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign a field, and bring what depends on it up to date.

        Args:
            name: The field, or another attribute.
            value: Its value.

        Raises:
            ValidationError: The value is not allowed, or a new object is needed for it.
        """
        field = type(self).model_fields.get(name)
        if field is None:
            super().__setattr__(name, value)
            return
        if field.frozen:
            self._refuse(name, value)
        with _locks.assigning:
            draft = self._snapshot()
            private = dict(draft.__pydantic_private__ or {})
            type(self).__pydantic_validator__.validate_assignment(draft, name, value)
            draft._follow(name)
            changed = {
                key: new
                for key, new in (draft.__pydantic_private__ or {}).items()
                if new is not private.get(key)
            }
            with _locks.showing, whole_in_forks():
                self.__dict__.update(draft.__dict__)
                object.__setattr__(self, "__pydantic_fields_set__", draft.model_fields_set)
                if self.__pydantic_private__ is not None:
                    self.__pydantic_private__.update(changed)

    def _follow(self, name: str) -> None:
        """Bring what depends on a field that was just assigned up to date.

        Called on a copy of the object, which takes the object's place if nothing is raised.
        """

    def _snapshot(self) -> Self:
        """A copy that no assignment changes, over the same models."""
        with _locks.showing:
            return BaseModel.__copy__(self)

    def _refuse(self, name: str, value: Any) -> None:
        own = type(self).__name__
        raise ValidationError.from_exception_data(
            own,
            [
                InitErrorDetails(
                    type=PydanticCustomError(
                        "frozen_field",
                        "{name} is frozen, since it says which model is loaded and where it runs: "
                        "make a new object, {own}({name}=...); models that are loaded are shared",
                        {"name": name, "own": own},
                    ),
                    loc=(name,),
                    input=value,
                )
            ],
        )
