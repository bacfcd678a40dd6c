"""Any model of images may stand in for a paper's own."""

import pytest

from experiments.asymmetric_valleys import __main__ as asymmetric_valleys
from experiments.lipschitz_rate import __main__ as lipschitz_rate
from experiments.loss_surfaces import __main__ as loss_surfaces
from experiments.loss_surfaces.methods import Method
from experiments.nonmonotonic import __main__ as nonmonotonic
from experiments.walk_with_sgd import __main__ as walk_with_sgd
from lrscape.errors import InputError

OWN = "lrscape.models.plain:MLP"
# Of each paper: its command, an item, the flag, and a network of the laboratory.
PAPERS = {
    "nonmonotonic": (
        nonmonotonic, "fig5", "model",
        lambda lab: lab.network("small", lab.rule("small", "gaussian"), 0),
    ),
    "loss_surfaces": (
        loss_surfaces, "fig4", "model",
        lambda lab: lab.network(Method(optimizer="sgd", rate=0.1), 0),
    ),
    "walk_with_sgd": (
        walk_with_sgd, "table1", "models",
        lambda lab: lab.network(lab.models[0], rate=0.1, seed=0),
    ),
    "asymmetric_valleys": (
        asymmetric_valleys, "fig2", "models",
        lambda lab: lab.network(lab.pairs("fig2")[0], "sgd", 0),
    ),
    "lipschitz_rate": (
        lipschitz_rate, "mnist", "model",
        lambda lab: lab.network("mnist", lab.constant("mnist", 0.1), 0),
    ),
}  # fmt: skip


def lab_of(paper, root, name):
    command, item, flag, _ = PAPERS[paper]
    value = name if flag == "model" else (name,)
    arguments = command.Arguments(
        item=item, dataset="digits", run_dir=root, **{flag: value}
    )
    return command.lab_of(arguments)


@pytest.mark.parametrize("name", ["resnet8", OWN])
@pytest.mark.parametrize("paper", PAPERS)
def test_a_model_stands_in_and_names_the_networks(paper, name, tmp_path):
    network = PAPERS[paper][3](lab_of(paper, tmp_path, name))
    assert network.config.model == name and (
        name.replace(":", "_") in network.records.path.name
    )
    assert type(network.model).__name__ == ("MLP" if name == OWN else "ResNet")


@pytest.mark.parametrize("paper", PAPERS)
def test_what_cannot_stand_in_is_refused(paper, tmp_path):
    flag = PAPERS[paper][2]
    for name, words in (
        ("resnet21", "did you mean"), ("lrscape.models.plain:MPL", "has no 'MPL'"),
        ("no.such.module:f", "no.such"), ("lstm", "reads text"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words) as caught:
            lab_of(paper, tmp_path, name)
        assert f"{flag}={name!r}" in str(caught.value)


def test_networks_without_batch_norm_need_a_model_that_can_go_without(tmp_path):
    lab = lab_of("loss_surfaces", tmp_path, "resnet8")
    assert lab.plan.model == "resnet8"
    lab = lab_of("loss_surfaces", tmp_path, "vgg11")
    with pytest.raises(InputError, match="model='vgg11' has no field batch_norm"):
        lab.network(Method(optimizer="sgd", rate=0.1), 0, batch_norm=False)
