from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="spare_jax",
    version="0.1.0",
    description="Process reward models from single-pass annotation, in JAX: SPARE and SPARK",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["spare_jax", "spare_jax.*"]),
    package_data={"spare_jax.assets": ["*/*"]},
    install_requires=[
        "absl-py>=2.1",
        "datasets>=3.0",
        "flax>=0.12.8",
        "jax>=0.10",
        "jaxtyping>=0.3",
        "jinja2>=3.1",  # transformers needs it for chat templates and does not bring it
        "json_repair>=0.30",
        "math-verify>=0.8",
        "ml-collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.30",
        "outlines_core>=0.2.14",
        "pyarrow>=15.0",
        "qwix>=0.1.8",
        "safetensors>=0.5",
        "scipy>=1.13",
        "sentencepiece>=0.2",
        "tokenizers>=0.21",
        "tqdm>=4.66",
        "transformers>=5.23",
    ],
    extras_require={
        "test": [
            "hypothesis>=6.100",
            "ipykernel>=6.29",
            "nbclient>=0.10",
            "peft==0.21.2",  # parity only
            "pyright==1.1.414",
            "pytest>=8.0",
            "pytest-xdist>=3.7",
            "requests>=2.31",  # parity only: TRL's GRPOTrainer imports it and does not bring it
            "ruff==0.17.5",
            "torch==2.13.0",  # parity only; this version's wheel is the CPU build
            "trl==1.13.0",  # parity only; the last with PRMTrainer
        ],
    },
)
