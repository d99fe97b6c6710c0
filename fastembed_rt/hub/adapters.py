"""Which of a checkpoint's adapters is asked for: one, one for each role, or none."""

from __future__ import annotations

from ..errors import InvalidInputError, InvalidTypeError
from ..manifest import ROLES


def chosen(adapter: str | None) -> dict[str, str]:
    """Adapters by role; under "" one that is for all texts.

    Args:
        adapter: a name, "query=ONE,document=ANOTHER", or None.

    Raises:
        InvalidTypeError: no text.
        InvalidInputError: one of the roles alone, or twice.
    """
    if adapter is None:
        return {}
    if not isinstance(adapter, str):
        raise InvalidTypeError(f"adapter is {type(adapter).__name__}, expected the name of an adapter")
    pairs = [part.partition("=") for part in adapter.split(",")]
    if not any(equals and role in ROLES for role, equals, _ in pairs):
        return {"": adapter}
    found = {role: name for role, _, name in pairs}
    if sorted(role for role, _, _ in pairs) != sorted(ROLES) or not all(found.values()):
        both = ",".join(f"{role}=NAME" for role in ROLES)
        raise InvalidInputError(f"adapter {adapter!r}: adapters of roles are named for both, as {both}")
    return found
