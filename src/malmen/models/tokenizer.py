"""Loading a model's tokenizer: whatever transformers' AutoTokenizer can load."""

import warnings
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from malmen.errors import UserError, first_line


def load_tokenizer(directory: Path, name: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer in a model directory; ``name`` is the directory's name in messages.

    No code from the directory runs.

    Raises:
        UserError: if there is no tokenizer, or it cannot be loaded.
    """
    try:
        with warnings.catch_warnings():
            # MarianTokenizer recommends this package, but does not use it to translate.
            warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                directory, local_files_only=True, trust_remote_code=False
            )
        vocabulary = tokenizer.get_vocab()
    except Exception as error:  # transformers and tokenizers raise errors of any kind for broken files.
        raise UserError(
            f"{name} has no tokenizer that transformers can load ({first_line(error)}); take a revision that has one, "
            "add its files, or download it again."
        ) from None
    special = {token.content for token in tokenizer.added_tokens_decoder.values()}
    # Without files, transformers makes a tokenizer of special tokens alone, which reads nothing.
    if len(vocabulary.keys() - special) < 2:
        raise UserError(f"{name} has no tokenizer (no file of a vocabulary); take a revision that has one, or add it.")
    return tokenizer
