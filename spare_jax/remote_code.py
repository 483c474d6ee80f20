"""Loaders of other libraries that could run code which a directory brings along. They never do: every call is here.

A model's `auto_map` and a data set's script name Python files to import. transformers asks on standard input whether it
may, where nobody has said no.
"""

from typing import Any


def load_tokenizer(directory: str, *, as_it_is: bool) -> Any:
    """The tokenizer of a local directory: read from tokenizer.json `as_it_is`, or by the class that transformers
    chooses. Raises whatever transformers does, ValueError where the directory needs code of its own."""
    import transformers  # takes over a second, and only loading needs it

    reader = transformers.PreTrainedTokenizerFast if as_it_is else transformers.AutoTokenizer
    return reader.from_pretrained(directory, local_files_only=True, trust_remote_code=False)


def load_dataset(name: str, configuration: str | None, *, split: str) -> Any:
    """A split of a data set on the hub or in a directory. Raises whatever `datasets` does."""
    import datasets

    return datasets.load_dataset(name, configuration, split=split, trust_remote_code=False)
