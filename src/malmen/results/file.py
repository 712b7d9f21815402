"""What all files of results share: JSON with one number a line, and errors of one sentence."""

from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from malmen.errors import UserError
from malmen.runtime.files import write_json


class ResultPart(BaseModel):
    """A part of a file of results."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class ResultFile(ResultPart):
    """The content of a file of results.

    Attributes:
        kind: names such files in messages, as in "the metrics file".
    """

    kind: ClassVar[str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            UserError: if the file is missing or malformed.
        """
        try:
            return cls.model_validate_json(path.read_bytes(), strict=True)
        except FileNotFoundError:
            raise UserError(f"The {cls.kind} file {path} does not exist; run its job again.") from None
        except OSError as error:
            raise UserError(f"The {cls.kind} file {path} cannot be read ({error.strerror}).") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole file"
            raise UserError(
                f"{path} is not a {cls.kind} file ({where}: {first['msg']}); delete it and run its job again."
            ) from None

    def write(self, path: Path) -> None:
        """Write the file, one number a line, so that versions can be compared; a field that was not set is absent."""
        write_json(path, self.model_dump(by_alias=True, exclude_unset=True))
