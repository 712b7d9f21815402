"""The editors by name, as a configuration describes them."""

from torch import nn

from malmen.editing.layers import EditedLayer, select_layers
from malmen.settings import EditorSettings, FfnPatterns


def edited_layers(module: nn.Module, patterns: FfnPatterns, settings: EditorSettings) -> list[EditedLayer]:
    """Return the layers that an editor edits, in the model's order.

    Raises:
        UserError: if the model has no such layers, or too few blocks.
    """
    chosen = {
        layer.name: layer
        for kind in settings.ffn_layers
        for pattern in patterns[kind]
        for layer in select_layers(module, pattern, settings.last_blocks)
    }
    return [chosen[name] for name, _ in module.named_modules() if name in chosen]
