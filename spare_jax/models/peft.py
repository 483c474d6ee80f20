"""LoRA adapters in the format of Hugging Face's `peft`: adapter_config.json and adapter_model.safetensors.

An option that would change what the adapter computes, and is not supported here, is an error that names it; so is an
option that is not known here.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from spare_jax.models import adapters
from spare_jax.models.adapters import PROJECTIONS
from spare_jax.models.config import DecoderConfig
from spare_jax.models.decoder import Decoder, Linear
from spare_jax.models.json_files import (
    ModelError,
    positive_number,
    read_json,
    shown,
    whole_number,
    write_json,
    wrong_field,
)
from spare_jax.models.safetensors_files import read_header
from spare_jax.models.weights import tensor_names

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MAX_RANK = 2**16
_READ = ("peft_type", "r", "lora_alpha", "base_model_name_or_path", "revision")
# Options that do not change what a finished adapter computes, or that repeat what the names of its tensors say.
_WITHOUT_EFFECT = (
    "task_type", "lora_dropout", "auto_mapping", "peft_version", "inference_mode", "target_modules", "exclude_modules",
    "layers_pattern", "megatron_core", "qalora_group_size", "loftq_config", "eva_config", "ensure_weight_tying",
)  # fmt: skip
_INITIAL = (None, True, False, "gaussian", "eva", "orthogonal")  # other initialisations change the base's weights


def save(directory: str | pathlib.Path, model: Decoder, base: str) -> None:
    """Write the adapters of `model` to a directory; `base` is the path or hub id of the model that they adapt."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    adapted = adapters.of_model(model)
    tensors = {}
    for target, module in adapted.items():
        for part, param in (("lora_A", module.a), ("lora_B", module.b)):
            for name, array in zip(_names(target, part, model.config), np.asarray(param[...]), strict=True):
                tensors[name] = np.ascontiguousarray(array.T)
    save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    module = next(iter(adapted.values()))
    rank = module.a[...].shape[-1]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": module.scale * rank,
        "lora_dropout": module.dropout,
        "target_modules": list(adapted),
        "bias": "none",
        "inference_mode": True,
    }
    write_json(directory / CONFIG_FILE, config)


def read_config(directory: str | pathlib.Path) -> dict[str, Any]:
    """The content of adapter_config.json. Raises ModelError if it is not plain LoRA, or a field is missing or wrong."""
    path = pathlib.Path(directory) / CONFIG_FILE
    config = read_json(path)
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{path}: peft_type={shown(config.get('peft_type'))} is not supported: use a LORA adapter")
    for key in ("r", "lora_alpha", "base_model_name_or_path"):
        if not config.get(key):
            raise ModelError(f"{path}: {key} is missing: write it, it cannot be guessed")
    whole_number(path, config, "r", most=MAX_RANK)
    positive_number(path, config, "lora_alpha")
    for key in ("base_model_name_or_path", "revision"):
        if not isinstance(config.get(key) or "", str):
            raise wrong_field(path, key, config[key], "a text")
    checks = {key: not value for key, value in config.items() if key not in (*_READ, *_WITHOUT_EFFECT)}
    checks["bias"] = config.get("bias", "none") == "none"
    checks["init_lora_weights"] = config.get("init_lora_weights") in _INITIAL
    for key, supported in checks.items():
        if not supported:
            raise ModelError(
                f"{path}: {key}={shown(config[key])} is not supported: only plain LoRA is; merge the adapter with peft "
                "and load the model that it gives"
            )
    return config


def load(directory: str | pathlib.Path, base: Decoder) -> Decoder:
    """`base` with the adapters of a directory, in float32.

    Raises:
      ModelError: an option is not supported, or a tensor is missing, unknown, or does not fit the base's shape.
    """
    directory = pathlib.Path(directory)
    config = read_config(directory)
    path = directory / WEIGHTS_FILE
    if not path.is_file():
        raise ModelError(f"{path} is missing: save the adapter with peft as safetensors")
    tensors = read_header(path)
    rank = config["r"]

    def adapted(key_path, linear: Linear):
        target = targets.get(jax.tree_util.keystr(key_path, simple=True, separator="."))
        if target is None:
            return linear
        sizes = linear.kernel[...].shape
        shapes = {"lora_A": (rank, sizes[1]), "lora_B": (sizes[2], rank)}
        parts = {}
        for part, shape in shapes.items():
            names = _names(target, part, base.config)
            for name in names:
                if name not in tensors or tensors[name].shape != shape:
                    have = f"has shape {list(tensors[name].shape)}" if name in tensors else "is missing"
                    raise ModelError(
                        f"{path}: tensor {name} {have} and the base asks for {list(shape)}: use the base model that "
                        "the adapter was trained on"
                    )
            parts[part] = jnp.asarray(np.stack([tensors.pop(name).whole().T for name in names]), jnp.float32)
        return adapters.with_adapter(linear, parts["lora_A"], parts["lora_B"], config["lora_alpha"] / rank)

    present = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in tensors}
    targets = {PROJECTIONS[target]: target for target in PROJECTIONS if target in present}
    model = jax.tree.map_with_path(adapted, base, is_leaf=lambda x: isinstance(x, Linear))
    if tensors:
        raise ModelError(
            f"{path}: tensor {min(tensors)} has no place in the base: merge the adapter with peft and load the model "
            "that it gives"
        )
    return model


def _names(target: str, part: str, config: DecoderConfig) -> list[str]:
    """The names of an adapter's tensors "lora_A" or "lora_B" (`part`), one per layer."""
    kernels = tensor_names(f"{PROJECTIONS[target]}.kernel", config)
    return [f"base_model.model.{kernel.removesuffix('.weight')}.{part}.weight" for kernel in kernels]
