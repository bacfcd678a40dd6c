"""An LSTM that predicts the next word or character."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrscape.errors import InputError

# Of each layer the cell's state and its output, both (n, features).
Carry = tuple[tuple[jax.Array, jax.Array], ...]


class LSTM(nn.Module):
    """A language model: embedding, layers of LSTM, a softmax over the vocabulary.

    Dropout follows the embedding and each layer, and is left out between the steps of
    a layer, as Zaremba et al. have it; their small network is 200 features, two layers
    and no dropout (4,651,600 parameters for the 10,000 words of the Penn Treebank),
    their medium one 650 features and 0.5.

    A long text is trained on piece by piece: each piece goes on from the state that
    the one before it left, ``logits, carry = model.apply(variables, tokens, train=True,
    carry=carry, return_carry=True)``, and gradients end at the piece's start. Without a
    `carry` it starts from zeros.

    Attributes:
        num_classes: the size of the vocabulary.
        features: the width of each layer.
        layers: how many there are.
        embedding: the width of the embedding; None is `features`.
        dropout: the share of outputs that is dropped, in [0, 1).
        tie_weights: the last layer's weights are the embedding's; their widths must
            then be the same.

    Example:
        >>> model = LSTM(num_classes=50, features=8)
        >>> tokens = jnp.zeros((4, 20), jnp.int32)
        >>> variables = model.init(jax.random.key(0), tokens, train=False)
        >>> logits, carry = model.apply(variables, tokens, train=False,
        ...     carry=model.initial_carry(4), return_carry=True)
        >>> logits.shape
        (4, 20, 50)

    References:
        Hochreiter and Schmidhuber, `Long Short-Term Memory
        <https://doi.org/10.1162/neco.1997.9.8.1735>`_, 1997
        Zaremba et al., `Recurrent Neural Network Regularization
        <https://arxiv.org/abs/1409.2329>`_, 2014
        Press and Wolf, `Using the Output Embedding to Improve Language Models
        <https://arxiv.org/abs/1608.05859>`_, 2016
    """

    num_classes: int
    features: int = 200
    layers: int = 2
    embedding: int | None = None
    dropout: float = 0.0
    tie_weights: bool = False

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        *,
        train: bool,
        carry: Carry | None = None,
        return_carry: bool = False,
    ) -> jax.Array | tuple[jax.Array, Carry]:
        """Maps tokens to the logits of the tokens that follow each.

        Args:
            tokens: (n, time), integers from 0 to ``num_classes - 1``.
            train: whether dropout drops.
            carry: where each layer starts, as `initial_carry` or an earlier call gives
                it; None is zeros.
            return_carry: whether to return where each layer ended.

        Returns:
            Logits (n, time, num_classes); with `return_carry` a tuple of them and the
            carry.

        Raises:
            InputError: tokens of another rank or type, a carry of another number of
                layers or examples, or tied weights of different widths.
        """
        carry = self._checked(tokens, carry)
        width = self.features if self.embedding is None else self.embedding
        embed = nn.Embed(self.num_classes, width)
        dropout = nn.Dropout(self.dropout, deterministic=not train)
        x = embed(tokens)
        # Parameters in double precision would not fit a carry in single.
        carry = jax.tree.map(
            lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, x.dtype)), carry
        )
        ended = []
        for start in carry:
            cell = nn.OptimizedLSTMCell(self.features)
            end, x = nn.RNN(cell, return_carry=True)(dropout(x), initial_carry=start)
            ended.append(end)
        self.sow("intermediates", "penultimate", x)
        x = dropout(x)
        if self.tie_weights:
            bias = self.param("bias", nn.initializers.zeros, (self.num_classes,))
            logits = embed.attend(x) + bias[None, None]
        else:
            logits = nn.Dense(self.num_classes)(x)
        return (logits, tuple(ended)) if return_carry else logits

    def initial_carry(self, batch_size: int) -> Carry:
        """Zeros for every layer, for `batch_size` examples."""
        zeros = jnp.zeros((batch_size, self.features), jnp.float32)
        return ((zeros, zeros),) * self.layers

    def _checked(self, tokens: jax.Array, carry: Carry | None) -> Carry:
        if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise InputError(
                f"tokens of shape {tokens.shape} and type {tokens.dtype} must be "
                "integers of shape (n, time); `lrscape.data.load_text` makes them"
            )
        if self.layers < 1:
            raise InputError(f"layers={self.layers!r} must be 1 or more")
        if self.tie_weights and self.embedding not in (None, self.features):
            raise InputError(
                f"tie_weights=True needs embedding={self.embedding!r} to be as wide as "
                f"features={self.features!r}; leave out one of them"
            )
        expected = self.initial_carry(tokens.shape[0])
        if carry is None:
            return expected
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(carry)]
        if shapes != [leaf.shape for leaf in jax.tree.leaves(expected)]:
            raise InputError(
                f"carry of shapes {shapes} is not that of {self.layers} layers of "
                f"{self.features} features for {tokens.shape[0]} examples; start from "
                f"model.initial_carry({tokens.shape[0]})"
            )
        return carry
