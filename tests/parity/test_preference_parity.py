"""ORPO and DPO are TRL's, value and gradient."""

import preference_parity
import pytest


@pytest.mark.parametrize("family", preference_parity.FAMILIES)
@pytest.mark.parametrize("kind", preference_parity.KINDS)
def test_loss_and_gradient_equal_trls(kind, family, tmp_path):
    found = preference_parity.compare(family, kind, tmp_path)
    assert found.loss > 0.1 and len(set(found.lengths)) > 4
    assert found.difference < 1e-5
    assert found.gradient < 1e-4
