"""What the settings of every editor say of it, so that nothing else needs to know its method."""

from typing import TYPE_CHECKING, ClassVar, get_args

from pydantic.dataclasses import dataclass

from malmen.config.base import STRICT, BatchSize, TaskName, Tokens
from malmen.config.edited_layers import EditedLayersSettings

if TYPE_CHECKING:
    from malmen.config.memit import CovarianceSettings


@dataclass(frozen=True, config=STRICT, kw_only=True)
class EditorSettings(EditedLayersSettings):
    """The settings of an editor, whatever its method.

    A class for a method derives from this one and is itself a frozen dataclass of pydantic. It gives ``method`` one
    allowed value, adds its own keys, and changes below what is otherwise than said.
    """

    tasks: ClassVar[tuple[TaskName, ...]] = get_args(TaskName)
    """How models answer that it can edit."""
    trained: ClassVar[bool] = False
    """Whether a job trains it on training tuples before it edits (:mod:`malmen.jobs.train_editor`)."""
    batches_in: ClassVar[str | None] = None
    """The section of its keys that holds batch sizes; None: they are beside ``label``."""

    method: str
    """How the editor edits."""

    @property
    def batch_size(self) -> BatchSize:
        """Sequences run through the language model at once while the editor is evaluated."""
        return "auto"

    @property
    def captured_tokens(self) -> Tokens | None:
        """The positions whose keys and value gradients it reads; None if it reads neither, so that any layer will do.

        Every job tries on two short sequences whether the model computes these for the layers to edit.
        """
        return "answer"

    @property
    def covariance(self) -> "CovarianceSettings | None":
        """The text from which a job estimates the covariance of keys that it needs; None if it needs none."""
        return None
