"""GRPO's loss is TRL's, value and gradient."""

import pytest

pytest.importorskip("requests", reason="TRL's GRPOTrainer imports requests")

import grpo_parity


@pytest.mark.parametrize("kind", ["grpo", "bnpo", "dapo", "dr_grpo"])
def test_loss_and_gradient_equal_trls(kind, tmp_path):
    found = grpo_parity.compare(kind, tmp_path)
    assert abs(found.loss) > 0.01 and 0 < found.clipped < 1
    assert found.difference < 1e-5
    assert found.gradient < 1e-4
