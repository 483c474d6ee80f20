"""An adapter is the same thing here and in peft."""

import numpy as np
import pytest

from spare_jax.models import huggingface
from spare_jax.models.adapters import PROJECTIONS

parity = pytest.importorskip("adapter_parity")


@pytest.mark.parametrize("family", ("Llama", "Qwen3"))
def test_adapters_are_the_same_here_and_in_peft(family, tmp_path):
    read, written, equal, count = parity.compare(family, tmp_path)
    assert max(read, written) < 1e-4
    assert equal == count == 2 * 7 * 2


def test_fewer_targets_of_peft_are_read(tmp_path):
    base = parity.torch_base("Qwen2", tmp_path / "base")
    theirs = parity.torch_adapter(base, tmp_path / "adapter", target_modules=["v_proj", "down_proj"], lora_alpha=3)
    found = huggingface.load(tmp_path / "adapter").model
    np.testing.assert_allclose(parity.logits(found), parity.torch_logits(theirs), atol=1e-4)
    assert set(PROJECTIONS) >= {"v_proj", "down_proj"}
