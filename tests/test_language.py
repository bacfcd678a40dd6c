"""Text as tokens, and the LSTM that reads it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lrscape import data, landscape, models
from lrscape.data import load_text, token_streams, token_windows
from lrscape.errors import InputError, MissingDatasetError

# Text.


@pytest.fixture
def corpus(tmp_path):
    """A file of 20 words on 4 lines."""
    path = tmp_path / "corpus.txt"
    path.write_text("a b a c a\nb a b a d\n e e f g h\nz z a y x\n")
    return path


@pytest.fixture
def ptb(tmp_path):
    """Three files in the layout of the Penn Treebank's archive."""
    folder = tmp_path / "simple-examples" / "data"
    folder.mkdir(parents=True)
    for part, text in (
        ("train", " the cat <unk> \n the N cat the \n"),
        ("valid", " the dog \n"),
        ("test", " N N cat \n"),
    ):
        (folder / f"ptb.{part}.txt").write_text(text)
    return tmp_path


def test_a_file_of_characters(corpus):
    text = load_text(corpus, level="characters", held_out=0.25)
    whole = corpus.read_text()
    assert [len(p) for p in (text.train, text.validation, text.test)] == [21, 10, 10]
    # In their order, and numbered in theirs; what training never saw is unknown.
    assert text.decode(text.train) == whole[:21]
    assert text.vocabulary == (*sorted(set(whole[:21])), "<unk>")
    expected = [c if c in whole[:21] else "<unk>" for c in whole[-10:]]
    assert text.decode(text.test) == "".join(expected)
    np.testing.assert_array_equal(text.encode(whole[:21]), text.train)
    assert text.train.dtype == np.int32


def test_a_file_of_words(corpus):
    text = load_text(corpus, level="words", held_out=0.25)
    # Five of six words and their lines' ends; the most frequent first.
    assert text.vocabulary == ("a", "b", "<eos>", "c", "d", "<unk>")
    assert text.decode(text.train) == "a b a c a\nb a b a d\n"
    assert text.decode(text.validation) == " ".join(["<unk>"] * 5) + "\n"
    small = load_text(corpus, level="words", held_out=0.25, max_words=3)
    assert small.vocabulary == ("a", "b", "<unk>")
    assert small.decode(small.train[:6]) == "a b a <unk> a <unk>"
    known = data.Text(
        name="", level="words", vocabulary=("a", "b"), train=text.train,
        validation=text.validation, test=text.test,
    )  # fmt: skip
    np.testing.assert_array_equal(known.encode("a b b"), [0, 1, 1])
    with pytest.raises(InputError, match="'q' is not in the vocabulary of 2, which"):
        known.encode("a q b")


def test_penn_treebank(ptb):
    for folder in (ptb, ptb / "simple-examples" / "data"):
        text = load_text("ptb", level="words", data_dir=folder)
        # Its own <unk> is the one; ties by which comes first.
        assert text.vocabulary == ("the", "cat", "<eos>", "<unk>", "N")
        np.testing.assert_array_equal(text.train, [0, 1, 3, 2, 0, 4, 1, 0, 2])
        np.testing.assert_array_equal(text.validation, [0, 3, 2])
        np.testing.assert_array_equal(text.test, [4, 4, 1, 2])
    cut = load_text("ptb", level="words", data_dir=ptb, max_words=3)
    assert cut.vocabulary == ("the", "cat", "<unk>")


def test_a_treebank_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    (tmp_path / "ptb.train.txt").write_text("only one of the three\n")
    with pytest.raises(MissingDatasetError) as caught:
        load_text("ptb", level="words")
    for words in (
        "ptb.train.txt, ptb.valid.txt, ptb.test.txt are not together in any of",
        f"{tmp_path}, {tmp_path / 'ptb'}, {tmp_path / 'simple-examples' / 'data'}",
        "simple-examples.tgz in ", "tiny_shakespeare",
    ):  # fmt: skip
        assert words in str(caught.value)


def test_other_bad_texts(corpus, tmp_path):
    with pytest.raises(
        InputError, match="level='word' is unknown; did you mean 'words'"
    ):
        load_text(corpus, level="word")
    for max_words, level in ((1, "words"), (10, "characters")):
        with pytest.raises(
            InputError, match=f"max_words={max_words} with level='{level}"
        ):
            load_text(corpus, level=level, max_words=max_words)
    for held_out in (0, 0.5, 1):
        with pytest.raises(InputError, match=f"held_out={held_out} must lie between"):
            load_text(corpus, level="words", held_out=held_out)
    with pytest.raises(MissingDatasetError, match=r"nowhere\.txt' is no file; give"):
        load_text(tmp_path / "nowhere.txt", level="words")
    with pytest.raises(MissingDatasetError, match="prepare tiny_shakespear`|prepare "):
        load_text("tiny_shakespear", level="words", data_dir=tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match="has no words in its part 'train'"):
        load_text(tmp_path / "empty.txt", level="words")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match=r"image\.png' cannot be read as UTF-8 text"):
        load_text(tmp_path / "image.png", level="characters")


@pytest.mark.parametrize(
    ("n", "batch_size", "steps"), [(50, 3, 4), (13, 3, 4), (9, 1, 8)]
)
def test_streams_go_on_from_piece_to_piece(n, batch_size, steps):
    tokens = np.arange(n, dtype=np.int32)
    inputs, targets = token_streams(tokens, batch_size, steps)
    assert inputs.shape == targets.shape == (*inputs.shape[:1], batch_size, steps)
    assert inputs.dtype == np.int32
    np.testing.assert_array_equal(targets, inputs + 1)
    for row in range(batch_size):
        stream = inputs[:, row].ravel()
        np.testing.assert_array_equal(np.diff(stream), 1)
    # No token twice, and fewer left out than a piece and the last one.
    assert len(np.unique(inputs)) == inputs.size
    assert (n - 1) // batch_size - inputs.shape[0] * steps < steps


def test_windows_cover_the_text():
    tokens = np.arange(100, 142, dtype=np.int32)
    inputs, targets = token_windows(tokens, 8)
    np.testing.assert_array_equal(inputs.ravel(), tokens[:40])
    np.testing.assert_array_equal(targets.ravel(), tokens[1:41])


@pytest.mark.parametrize(
    ("batch_size", "steps", "words"),
    [
        (0, 4, "batch_size=0 must be a whole number, 1"),
        (2, 0, "steps=0 must be a whole number, 1"),
        (3, 4, "12 tokens are too few for batch_size=3 .* that takes 13"),
    ],
)
def test_streams_that_cannot_be(batch_size, steps, words):
    with pytest.raises(InputError, match=words):
        token_streams(np.arange(12), batch_size, steps)


def test_perplexities():
    uniform = np.zeros(7)
    loss = optax.softmax_cross_entropy_with_integer_labels(uniform, np.array(3))
    np.testing.assert_allclose(data.perplexity(loss), 7, rtol=1e-6)
    # The exponential of the entropy, where counts are many.
    tokens = np.repeat(np.arange(3), [50_000, 30_000, 20_000])
    p = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(
        data.unigram_perplexity(tokens, tokens, 3), np.exp(-(p * np.log(p)).sum()),
        rtol=1e-4,
    )  # fmt: skip
    # What was never seen is rare, not impossible.
    assert data.unigram_perplexity(tokens, np.array([3]), 4) == pytest.approx(100_004)


@pytest.mark.real_data
def test_tiny_shakespeare(tiny_shakespeare_dir):
    text = load_text("tiny_shakespeare", level="characters",
                     data_dir=tiny_shakespeare_dir)  # fmt: skip
    assert text.decode(text.train[:14]) == "First Citizen:"
    # 1,115,394 characters of 65 kinds, as they are published.
    assert len(text.vocabulary) == 65 and "<unk>" not in text.vocabulary
    sizes = [len(part) for part in (text.train, text.validation, text.test)]
    assert sizes[0] == 1_003_854 and abs(sum(sizes) - 1_115_394) <= 1
    baseline = data.unigram_perplexity(text.train, text.test, 65)
    assert 25 < baseline < 32
    words = load_text("tiny_shakespeare", level="words", max_words=10_000,
                      data_dir=tiny_shakespeare_dir)  # fmt: skip
    assert len(words.vocabulary) == 10_000
    assert words.decode(words.train[:5]) == "First Citizen:\nBefore we"


# The network.


def lstm(**fields):
    return models.create("lstm", **{"num_classes": 11, "features": 6, **fields})


def made(model, shape=(3, 5)):
    tokens = jax.random.randint(jax.random.key(1), shape, 0, model.num_classes)
    init = jax.jit(functools.partial(model.init, train=False))
    variables = init(jax.random.key(0), tokens)
    # With biases, so that where they are added shows.
    return tokens, jax.tree.map(
        lambda x: x + 0.3 * jnp.sin(jnp.arange(float(x.size))) if x.ndim == 1 else x,
        variables,
    )


@pytest.mark.parametrize(
    ("fields", "parameters"),
    [
        # Zaremba et al. (2014): the small network, and the medium one, "20 million".
        ({}, 10_000 * 200 + 2 * (400 * 800 + 800) + 200 * 10_000 + 10_000),
        ({"features": 650}, 19_775_200),
        # One matrix fewer.
        ({"tie_weights": True}, 4_651_600 - 2_000_000),
        ({"layers": 1, "embedding": 50}, 500_000 + 250 * 800 + 800 + 2_010_000),
    ],
)
def test_parameters(fields, parameters):
    model = models.create("lstm", num_classes=10_000, **fields)
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), jnp.zeros((2, 3), jnp.int32))
    assert set(variables) == {"params"}
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == parameters


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("tie_weights", [False, True])
def test_equations(tie_weights):
    """Hochreiter and Schmidhuber with a forget gate, written out in numpy."""
    model = lstm(tie_weights=tie_weights)
    tokens, variables = made(model)
    params = jax.tree.map(np.asarray, variables["params"])
    x = params["Embed_0"]["embedding"][tokens]
    expected_carry = []
    for n in range(2):
        cell = params[f"OptimizedLSTMCell_{n}"]
        c, h, outputs = np.zeros((3, 6)), np.zeros((3, 6)), []
        for step in range(tokens.shape[1]):
            i, f, g, o = (
                x[:, step] @ cell[f"i{gate}"]["kernel"]
                + h @ cell[f"h{gate}"]["kernel"] + cell[f"h{gate}"]["bias"]
                for gate in "ifgo"
            )  # fmt: skip
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            outputs.append(h)
        x = np.stack(outputs, axis=1)
        expected_carry.append((c, h))
    if tie_weights:
        expected = x @ params["Embed_0"]["embedding"].T + params["bias"]
    else:
        expected = x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    (logits, carry), sown = model.apply(
        variables, tokens, train=False, return_carry=True, mutable=["intermediates"]
    )
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    (features,) = sown["intermediates"]["penultimate"]
    np.testing.assert_allclose(features, x, rtol=1e-4, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        carry, tuple(expected_carry),
    )  # fmt: skip


def test_a_text_in_pieces_is_the_text():
    """Going on from where a piece ended; and no token sees those behind it."""
    model = lstm(layers=1)
    tokens, variables = made(model, (2, 6))
    apply = jax.jit(functools.partial(model.apply, train=False, return_carry=True))
    whole, end = apply(variables, tokens, carry=model.initial_carry(2))
    first, carry = apply(variables, tokens[:, :3], carry=model.initial_carry(2))
    second, other_end = apply(variables, tokens[:, 3:], carry=carry)
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), whole, atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), end, other_end
    )
    changed = apply(variables, tokens.at[:, 4].set(10 - tokens[:, 4]),
                    carry=model.initial_carry(2))[0]  # fmt: skip
    np.testing.assert_array_equal(changed[:, :4], whole[:, :4])
    assert (changed[:, 4:] != whole[:, 4:]).any()


def test_dropout_between_layers():
    model = lstm(dropout=0.5, features=64)
    tokens, variables = made(model)
    seen = []

    def note(call, args, kwargs, context):
        result = call(*args, **kwargs)
        if isinstance(context.module, nn.Dropout):
            seen.append((np.asarray(args[0]), np.asarray(result)))
        return result

    with nn.intercept_methods(note):
        noisy = model.apply(
            variables, tokens, train=True, rngs={"dropout": jax.random.key(2)}
        )
    assert len(seen) == 3  # behind the embedding and each layer
    for before, after in seen:
        assert before.shape == (3, 5, 64)
        kept = after != 0
        assert 0.4 < kept.mean() < 0.6
        np.testing.assert_allclose(after[kept], 2 * before[kept], rtol=1e-6)
    # Other units at every step and in every layer.
    assert (seen[0][1][:, 0] != 0).tolist() != (seen[0][1][:, 1] != 0).tolist()
    assert ((seen[0][1] != 0) != (seen[1][1] != 0)).any()
    quiet = model.apply(variables, tokens, train=False)
    assert (noisy != quiet).any()


@jax.numpy_dtype_promotion("standard")  # Optax's Adam is not strict
def test_learns_what_takes_a_memory():
    """0 0 1 1 0 0 1 1 ...: the last token alone says nothing of the next."""
    text = np.tile([0, 0, 1, 1], 100).astype(np.int32)
    inputs, targets = token_streams(text, 4, 6)
    model = lstm(num_classes=2, features=8, layers=1)
    tx = optax.adam(0.03)

    def loss_fn(params, carry, x, y):
        logits, carry = model.apply(
            {"params": params}, x, train=True, carry=carry, return_carry=True
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return losses.mean(), carry

    def step(state, batch):
        params, opt_state, carry = state
        (loss, carry), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
            params, carry, *batch
        )
        updates, opt_state = tx.update(gradient, opt_state)
        return (optax.apply_updates(params, updates), opt_state, carry), loss

    variables = model.init(jax.random.key(0), inputs[0], train=False)

    @jax.jit
    def train(params):
        start = (params, tx.init(params), model.initial_carry(4))
        batches = jax.tree.map(lambda a: jnp.tile(a, (20, 1, 1)), (inputs, targets))
        return jax.lax.scan(step, start, batches)[1]

    losses = train(variables["params"])
    unigram = data.unigram_perplexity(text, text, 2)
    assert unigram == pytest.approx(2, rel=1e-3)
    assert data.perplexity(losses[-10:].mean()) < 1.05


@pytest.mark.parametrize(
    ("fields", "tokens", "options", "words"),
    [
        ({}, jnp.zeros((1, 8, 8, 3)), {}, r"tokens of shape \(1, 8, 8, 3\) and type f"),
        ({}, jnp.zeros((2, 3)), {}, "type float32 must be integers"),
        ({"layers": 0}, None, {}, "layers=0 must be a whole number, 1 or more"),
        ({"tie_weights": True, "embedding": 3}, None, {}, "needs embedding=3 to be as"),
        (
            {},
            None,
            {"carry": lstm().initial_carry(3)},
            "start from model.initial_carry",
        ),
        ({}, None, {"carry": lstm(layers=1).initial_carry(2)}, "not that of 2 layers"),
    ],
)
def test_bad_input(fields, tokens, options, words):
    tokens = jnp.zeros((2, 3), jnp.int32) if tokens is None else tokens
    with pytest.raises(InputError, match=words):
        lstm(**fields).init(jax.random.key(0), tokens, train=False, **options)


def test_windows_make_an_objective():
    """A ragged last batch included; and its curvature through the recurrence."""
    model = lstm(num_classes=5, layers=1)
    text = np.random.default_rng(0).integers(0, 5, 72).astype(np.int32)
    windows = token_windows(text, 10)
    _, variables = made(model)

    def loss_fn(params, batch):
        logits = model.apply({"params": params}, batch.inputs, train=False)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
        return losses.mean()

    objective = landscape.mean_objective(loss_fn, windows, batch_size=4)
    point = variables["params"]
    np.testing.assert_allclose(objective(point), loss_fn(point, windows), rtol=1e-5)
    direction = jax.tree.map(jnp.ones_like, point)
    gradient_at = jax.jit(jax.grad(lambda p: loss_fn(p, windows)))
    ahead, behind = (
        gradient_at(jax.tree.map(lambda p, move=move: p + move, point))
        for move in (1e-2, -1e-2)
    )
    jax.tree.map(
        lambda h, a, b: np.testing.assert_allclose(h, (a - b) / 2e-2, atol=2e-3),
        landscape.hvp(objective, point, direction), ahead, behind,
    )  # fmt: skip
