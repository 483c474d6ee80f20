"""What of a settings dataclass a config lists.

A pipeline's config is made of the frozen dataclasses that the rooms below are set by (runs/settings.py). Their fields
are its keys, but for those that are marked here.
"""

import dataclasses
from typing import Annotated, Any

# A file, a directory, or a hub id. A stage that is given one notes the digest of a file (runs/stage.py).
FileName = Annotated[str, "file"]


def unlisted(default: Any) -> Any:
    """The default of a field that is a key only where a config gives it another value: the run fills it in (the
    context of a model), or few configs change it."""
    return dataclasses.field(default=default, metadata={"listed": False})


def is_listed(settings: Any, field: dataclasses.Field) -> bool:
    """Whether a field of these settings is a key."""
    return field.metadata.get("listed", True) or getattr(settings, field.name) != field.default
