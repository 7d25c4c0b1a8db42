"""Assigning fields of the frameworks' adapters: checked, in effect at once, whole for threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from pydantic import BaseModel, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import LiteralString, Self

from m3_core.adapters.keywords import refuse_unknown
from m3_core.adapters.twins import AsyncTwins
from m3_core.forks import survive_forks, whole_in_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

_FROZEN: LiteralString = (
    "{name} is frozen, since it says which model is loaded and where it runs: make a new object, "
    "{own}({name}=...); models that are loaded are shared"
)


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


class Assignable(AsyncTwins, BaseModel):
    """Fields that users assign after construction.

    A value is checked as the constructor checks it, and counts from the next call on; what is
    running keeps what it began with. Frozen fields are those that another model would have to be
    loaded for. If anything fails, the object is as it was.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"origin"})
    """Fields that errors do not offer to users."""
    others: ClassVar[frozenset[str]] = frozenset()
    """Options that whoever makes the object takes himself."""

    # Of validators before, those of base classes run last: it sees what subclasses have left.
    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_names(cls, values: Any) -> Any:
        if isinstance(values, dict) and cls.model_config.get("extra") == "forbid":
            fields = cls.model_fields
            aliases = {str(one.alias) for one in fields.values()}
            aliases |= {str(one.validation_alias) for one in fields.values()}
            unknown = values.keys() - fields.keys() - aliases
            owner = cls.model_config.get("title") or cls.__name__
            refuse_unknown(owner, unknown, (fields.keys() | cls.others) - cls.hidden)
        return values

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
        self._change(lambda draft: draft._set({name: value}))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the object, over the same models; what is updated counts as if it were assigned.

        Args:
            update: Values of fields of the copy.
            deep: Copy what the fields hold too.

        Returns:
            The copy.

        Raises:
            ValidationError: A value is not allowed, a new object is needed for it, or there is no
                such field.
        """
        made = super().model_copy(deep=deep)
        if not update:
            return made
        for name, value in update.items():
            field = type(self).model_fields.get(name)
            if field is None:
                self._refuse(name, value, "{name} is no field of {own}")
            elif field.frozen and value != getattr(self, name):
                self._refuse(name, value)
        made._change(
            lambda draft: draft._set(
                {n: v for n, v in update.items() if not type(self).model_fields[n].frozen}
            )
        )
        return made

    def copy(
        self,
        *,
        include: object = None,
        exclude: object = None,
        update: Mapping[str, Any] | None = None,
        deep: bool = False,
    ) -> Self:
        """Do ``model_copy``, under the name that pydantic 1 gave it.

        Args:
            include: Not allowed: a copy has all fields.
            exclude: Not allowed likewise.
            update: Values of fields of the copy.
            deep: Copy what the fields hold too.

        Returns:
            The copy.

        Raises:
            TypeError: Fields are to be left out.
            ValidationError: As of ``model_copy``.
        """
        if include is not None or exclude is not None:
            raise TypeError(
                f"a copy of {type(self).__name__} has all of its fields: leave include and exclude "
                "out, or take model_dump(include=..., exclude=...) for the values"
            )
        return self.model_copy(update=update, deep=deep)

    def _set(self, values: Mapping[str, Any]) -> None:
        """Assign fields of a copy that nobody else has; what depends on them sees them all."""
        for name, value in values.items():
            type(self).__pydantic_validator__.validate_assignment(self, name, value)
        self._follow(values.keys())

    def _change(self, change: Callable[[Self], None]) -> None:
        """Change the object at once, or not at all if anything fails.

        Args:
            change: Changes a copy of the object, which takes the object's place then.
        """
        with _locks.assigning:
            draft = self._snapshot()
            private = dict(draft.__pydantic_private__ or {})
            change(draft)
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

    def _follow(self, names: Collection[str]) -> None:
        """Bring what depends on fields that were just assigned up to date.

        Called on a copy of the object, which takes the object's place if nothing is raised.
        """

    def _snapshot(self) -> Self:
        """A copy that no assignment changes, over the same models."""
        with _locks.showing:
            return BaseModel.__copy__(self)

    def _refuse(self, name: str, value: Any, why: LiteralString = _FROZEN) -> NoReturn:
        own = type(self).__name__
        raise ValidationError.from_exception_data(
            own,
            [
                InitErrorDetails(
                    type=PydanticCustomError(
                        "frozen_field",
                        why,
                        {"name": name, "own": own},
                    ),
                    loc=(name,),
                    input=value,
                )
            ],
        )
