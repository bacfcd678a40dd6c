"""Dropout is off in every policy, wherever it stands; other noise needs a key."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrscape import landscape
from lrscape.errors import InputError

INPUTS = jax.random.normal(jax.random.key(0), (6, 3, 4))
SAMPLE = (INPUTS, jnp.arange(6, dtype=jnp.int32) % 3)


class Attending(nn.Module):
    rate: float = 0.5
    by_field: bool = False
    cls: type = nn.MultiHeadDotProductAttention

    @nn.compact
    def __call__(self, x, train):
        field = {"deterministic": not train} if self.by_field else {}
        call = {} if self.by_field else {"deterministic": not train}
        x = self.cls(num_heads=2, dropout_rate=self.rate, **field)(x, **call)
        x = nn.BatchNorm(use_running_average=not train)(x.reshape(len(x), -1))
        return nn.Dense(3)(nn.Dropout(self.rate, deterministic=not train)(x))


@pytest.mark.parametrize("by_field", [False, True])
@pytest.mark.parametrize("cls", [nn.MultiHeadDotProductAttention, nn.SelfAttention])
@pytest.mark.parametrize("norm", ["train", "recalibrate"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_attention_with_dropout_is_as_without(norm, cls, by_field):
    losses = []
    for rate in (0.5, 0.0):
        model = Attending(rate, by_field, cls)
        params = model.init(jax.random.key(1), INPUTS, train=False)["params"]
        objective = landscape.flax_objective(model, SAMPLE, norm=norm, batch_size=3)
        losses.append(objective(params))
        assert model.rate == rate
    np.testing.assert_allclose(*losses, rtol=1e-6)


class Noisy(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = x.reshape(len(x), -1)
        if train:
            x = x + jax.random.normal(self.make_rng("noise"), x.shape, x.dtype)
        return nn.Dense(3)(x)


def test_a_modules_own_noise():
    settings = {"norm": "train", "batch_size": 6}
    with pytest.raises(InputError, match=r"(?s)noise.*rngs="):
        landscape.flax_objective(Noisy(), SAMPLE, **settings)
    with pytest.raises(InputError, match=r"rngs\['noise'\]=3 must be a PRNG key"):
        landscape.flax_objective(Noisy(), SAMPLE, **settings, rngs={"noise": 3})
    params = Noisy().init(jax.random.key(0), INPUTS, train=False)["params"]
    found = [
        landscape.flax_objective(
            Noisy(), SAMPLE, **settings, rngs={"noise": jax.random.key(seed)}
        )
        for seed in (0, 0, 1)
    ]
    losses = [float(objective(params)) for objective in found]
    assert losses[0] == losses[1] != losses[2]
    assert found[0].settings["rngs"] == "noise"
    # Nothing is drawn by this policy.
    quiet = landscape.flax_objective(Noisy(), SAMPLE, norm="eval", batch_size=6)
    assert "rngs" not in quiet.settings
