"""The embedded models: Hugging Face directories inside the package, made by configs/tiny_models.py."""

from pathlib import Path

NAMES = (
    "tiny-base", "tiny-teacher", "tiny-verifier", "multihop-base", "multihop-teacher", "spatial-base",
    "spatial-teacher",
)  # fmt: skip


def directory(name: str) -> Path:
    """The directory of an embedded model."""
    return Path(__file__).parent / name


def resolve(path: str) -> str:
    """The directory of an embedded model's name; any other path as it is."""
    return str(directory(path)) if path in NAMES else path
