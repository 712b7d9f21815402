"""Reading the JSON files that figures and tables are drawn from."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from malmen.errors import UserError

Content = TypeVar("Content", bound=BaseModel)


def read_result(path: Path, content: type[Content], kind: str) -> Content:
    """Read a result file as the model that describes its content; ``kind`` names such files in messages.

    Raises:
        UserError: if the file is missing or malformed.
    """
    try:
        return content.model_validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        raise UserError(f"The {kind} file {path} does not exist; run the rule that makes it.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        message = f"{path} is not a {kind} file ({where}: {first['msg']}); delete it and run the rule that makes it."
        raise UserError(message) from None
