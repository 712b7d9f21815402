"""What the settings of all modules have in common.

Settings are plain frozen dataclasses, so that the editing code runs without the configuration's machinery; pydantic
builds and describes them when a configuration is read (:mod:`malmen.config`).
"""

from typing import Any

STRICT: dict[str, Any] = {"extra": "forbid", "use_attribute_docstrings": True}
"""As ``__pydantic_config__`` of a dataclass: refuse unknown keys, and describe fields by the strings below them."""
