"""The claims of the five papers: what each says, where, and how it is judged."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A claim.

    Attributes:
        name: the paper's number, and the claim's within it.
        says: the claim.
        where: the place in the paper.
        paper: what the paper found, in its numbers.
        criterion: what has to be measured for it to hold.
    """

    name: str
    says: str
    where: str
    paper: str
    criterion: str


# The number of a paper -> its experiment.
EXPERIMENTS = {
    "1": "nonmonotonic",
    "2": "loss_surfaces",
    "3": "walk_with_sgd",
    "4": "asymmetric_valleys",
    "5": "lipschitz_rate",
}

CLAIMS = {
    entry.name: entry
    for entry in (
        Entry(
            "1.1", "moving the inputs of a dense first layer is moving its weights, "
            "by a bounded amount", "Sec. 2, Eq. 1 to 5", "exact",
            "relative residual at most 1e-12 in double precision, and no draw of "
            "10,000 beyond the bound",
        ),
        Entry(
            "1.2", "a large rate bears no curvature above 2 / rate, so a run under a "
            "peak ends flatter", "Sec. 3, Eq. 13", "-",
            "gradient descent's last third below 1.1 of the limit, and the Gaussian's "
            "largest eigenvalue below the step rule's",
        ),
        Entry(
            "1.3", "towards the weights at the peak the Gaussian's loss rises less",
            "Sec. 6.1, Fig. 3a", "less", "mean rise below the step rule's, over alpha "
            "and over alpha / ||w||, five seeds",
        ),
        Entry(
            "1.4", "it withstands noise in the inputs, and moves towards test images, "
            "better", "Sec. 6.2, Fig. 3b, c", "better",
            "mean loss below the step rule's for both, and mean rise too, five seeds; "
            "none where the loss alone is lower",
        ),
        Entry(
            "1.5", "its loss is lower under moved weights, at random and along the "
            "fooling direction", "Fig. 4", "most points",
            "share of points above the diagonal over a half, raw and "
            "filter-normalised, by loss and by rise, seeds as clusters; none where it "
            "is so by loss alone",
        ),
        Entry(
            "1.6", "it lowers the error of the small and the large model",
            "Sec. 7, Fig. 5", "18.79 to 16.48 %, 9.53 to 8.68 %",
            "error below the step rule's at equal epochs, and below its tuned one, "
            "five seeds",
        ),
        Entry(
            "1.7", "the gradient is largest at the start, then falls until the rate "
            "peaks; it exceeds a lower bound", "Fig. 5, Eq. 15", "-",
            "largest in the first tenth in all seeds, rank correlation with time below "
            "zero until the peak, bound kept on the segment and on the way",
        ),
        Entry(
            "1.8", "the Gaussian is slightly better than the Laplacian, and rates that "
            "change at epochs alone do as well", "Sec. 5, Fig. 6", "slightly",
            "mean difference of errors over four lengths and three seeds; by epochs no "
            "worse than a point",
        ),
        Entry(
            "1.9", "over a range of peaks the worst still beats the step rule",
            "Sec. 7, Fig. 7", "18.15 against 18.79 %",
            "after as many epochs, 95 % bound of the worst peak below the mean of the "
            "step rule, untuned and tuned",
        ),
        Entry(
            "1.10", "one Gaussian network is worth five by the step rule",
            "Sec. 7, Table 1", "16.75 and 16.91 %",
            "smallest ensemble that is not worse has five networks or more",
        ),
        Entry(
            "1.11", "it improves the deep networks of tables 2 to 4",
            "Sec. 7.2, Tables 2 to 4", "all rows",
            "difference of last errors for each row, then over rows",
        ),
        Entry(
            "1.12", "a start of the rate that is too small hurts, and so does none "
            "that is slow", "Sec. 5", "the step rule's own largest rate is mostly a "
            "good start",
            "the least start and the peak itself both worse than the step rule's own "
            "rate, three seeds",
        ),
        Entry(
            "2.1", "any two optimizers end in minima with a barrier between them",
            "Sec. 4.1, Table 1, Figs. 2, 3", "21 of 21 pairs",
            "a barrier in every pair and seed, higher than that of one optimizer under "
            "another order of batches",
        ),
        Entry(
            "2.2", "the minima differ as functions", "Sec. 4.1, Eq. 4.1",
            "distance 0.16, 8 % of labels of 22 % possible",
            "disagreement over a third of both errors together for nine pairs of ten; "
            "matching hidden units does not remove the barrier",
        ),
        Entry(
            "2.3", "optimizers differ in training accuracy, not in test accuracy",
            "Sec. 4.2, Fig. 4", "SGD lowest",
            "analysis of variance on training accuracy, equivalence of test accuracy "
            "within a point",
        ),
        Entry(
            "2.4", "loss curves look alike for one optimizer and differ between them",
            "Sec. 4.2, Fig. 5", "-", "distances within below those between, by "
            "permutations, four starts of five optimizers",
        ),
        Entry(
            "2.5", "Adam's basins are larger than SGD's", "Sec. 4.2, Figs. 5, 6",
            "larger", "width below twice the final loss plus 0.1, in alpha, in "
            "distance, and over the norm of the weights",
        ),
        Entry(
            "2.6", "switching the optimizer late still changes the minimum",
            "Sec. 4.3, Fig. 7", "at 25, 50 and 75 %",
            "barrier to the unswitched run above that of another order of batches "
            "after the switch",
        ),
        Entry(
            "2.7", "after a switch accuracy jumps to the new optimizer's level, and "
            "from Adam to SGD the distance from the start falls", "Sec. 4.3, Fig. 7",
            "a few epochs", "within a point after five epochs, slope of the distance "
            "below zero, with weight decay and without",
        ),
        Entry(
            "2.8", "batch norm makes quality independent of the start and surfaces "
            "smooth", "Sec. 4.4, Fig. 8, Table 2", "one maximum",
            "variance of the final loss larger without it; one maximum on lines with "
            "it, more without",
        ),
        Entry(
            "2.9", "Heun and Ralston beat SGD and SGD at twice the rate, midpoint does "
            "not, and Adam beats Adam over RK2", "App. A.4, Fig. 9", "-",
            "area under training accuracy, by epochs and by gradient evaluations, "
            "rates tuned; apart, rates doubled",
        ),
        Entry(
            "2.10", "beyond the final weights the loss rises", "Sec. 3.3, Fig. 10",
            "always", "loss at 1.5 and 2 above that at 1 in every run, and no "
            "eigenvalue of the Hessian below -1 % of its largest, without the scales "
            "that batch norm undoes",
        ),
        Entry(
            "2.11", "from extreme weights nothing trains without batch norm, and to a "
            "worse minimum with it", "App. A.5, Fig. 11", "-",
            "loss within 1 % of guessing or of the start without it; with it below "
            "that, and above a normal start's",
        ),
        Entry(
            "3.1", "SGD crosses hardly any barrier", "Sec. 3.1, Table 1",
            "0 to 23 of 450", "at most 1 % of the updates of early epochs, on both of "
            "two samples",
        ),
        Entry(
            "3.2", "what it crosses is far lower than the loss", "Sec. 3.1, Fig. 8",
            "far lower", "95th percentile of height / loss below 1 %",
        ),
        Entry(
            "3.3", "gradient descent bounces between walls while the floor falls",
            "Sec. 3.1, Fig. 1", "after 15 to 20 updates",
            "in updates 20 to 40 a floor in 90 %, mean cosine below -0.8, floor "
            "falling in 95 %",
        ),
        Entry(
            "3.4", "SGD turns less, moves farther, and its floor rises and falls",
            "Sec. 3.1, Fig. 2", "1.7 and 1.4 after 40 updates",
            "paired differences of cosine and distance, floor rising in 20 %",
        ),
        Entry(
            "3.5", "the height above the floor falls with the rate and with training",
            "Sec. 3.2, Table 2", "-", "smaller at the smaller rate in each epoch, and "
            "decreasing over epochs, three seeds",
        ),
        Entry(
            "3.6", "the batch size changes the cosine and the distance, the rate does "
            "not", "Sec. 3.2, Fig. 4", "-",
            "effect of a four-fold batch excludes zero; that of a four-fold rate lies "
            "within 0.05",
        ),
        Entry(
            "3.7", "the spectral norm falls, then rises, inversely to accuracy, and is "
            "larger in eval mode", "Sec. 3.1, Figs. 3, 7", "-",
            "trend, rank correlation with accuracy, ratio of the modes above 2",
        ),
        Entry(
            "3.8", "isotropic noise makes gradient descent end worse, and SGD alone "
            "frees it", "Sec. 4, Fig. 5", "-", "loss, error, norm and distance above "
            "those without noise; matched noise as control",
        ),
        Entry(
            "3.9", "the Hessian is the second moment plus a residual that is small "
            "near minima", "Eq. 3, App. D", "-",
            "identity to 1e-9; residual below a fifth of the Hessian at the end, and "
            "falling",
        ),
        Entry(
            "3.10", "a trapezoid does as well as cycles, and rising rates better than "
            "steps", "Sec. 5, Fig. 6", "-", "trapezoid no worse than cycles by 0.3 "
            "points; rising above steps",
        ),
        Entry(
            "3.11", "a small rate does not cross the floor's barriers either", "Sec. 6",
            "-", "share of crossings at a tenth of the rate no larger",
        ),
        Entry(
            "4.1", "every solution has asymmetric directions, found among positive "
            "draws", "Sec. 3.2, Fig. 2", "always, c > 2",
            "found for every network, at minimisers alone; more often by (0, 1) than "
            "by (-1, 1) draws; the all-ones direction as control",
        ),
        Entry(
            "4.2", "shifted along such a direction, test and training curves match",
            "Sec. 4.2, Fig. 3", "overlap", "least gap under half of the unshifted one "
            "in most directions; symmetric ones as control",
        ),
        Entry(
            "4.3", "points nearby keep the asymmetry", "Sec. 4.2, Fig. 4", "-",
            "share of moved points with c > 1 at least 0.95",
        ),
        Entry(
            "4.4", "a bias to the flat side lowers the expected loss",
            "Sec. 4.1, Theorem 1", "-", "gain at least its bound in all admissible "
            "draws",
        ),
        Entry(
            "4.5", "the mean of SGD's iterates lies on the flat side",
            "Sec. 5.1, Theorem 2", "-", "99 % interval of the mean of a round above "
            "zero; symmetric functions: not",
        ),
        Entry(
            "4.6", "no bump between the average and SGD after it; the average has the "
            "higher training and the lower test loss", "Sec. 6.1, Fig. 8, Table 1",
            "94.98/78.94 and 97.52/78.29 %", "bump at most zero, both differences of "
            "losses, three seeds",
        ),
        Entry(
            "4.7", "the average is displaced to the flat side", "Sec. 6.1, Figs. 7, 9",
            "-", "share of independent directions over a half, seeds as clusters; "
            "along u + v, which draws share, one a seed; curves that settle",
        ),
        Entry(
            "4.8", "smaller batches afterwards: same basin, worse training, better "
            "test accuracy", "Sec. 6.2, Fig. 10", "-",
            "all three signs, three seeds; the larger batch as control",
        ),
        Entry(
            "4.9", "width along random directions differs within one basin",
            "Sec. 6.3, Fig. 11", "-", "widths differ where there is no bump, raw and "
            "filter-normalised",
        ),
        Entry(
            "4.10", "directions of batch norm are more asymmetric than others",
            "Sec. 7, Fig. 12", "-", "difference of log c, at minimisers alone, "
            "excludes zero, and so with as many others",
        ),
        Entry(
            "4.11", "averaging batch norm alone beats averaging as many others, and "
            "loses to averaging all", "Sec. 7, Figs. 13, 14", "-",
            "order of test accuracies; gain with batch norm above that without",
        ),
        Entry(
            "5.1", "the last layer has the largest gradient", "Sec. 3, Eq. 1", "always",
            "in 95 % of the updates",
        ),
        Entry(
            "5.2", "the constants bound the last layer's gradient", "Eq. 9, 15, 20",
            "always", "never above the true bound, hostile batches included; "
            "apart, the forms as printed",
        ),
        Entry(
            "5.3", "the stated numbers give the stated rate", "Sec. 7.2", "0.668",
            "to three places",
        ),
        Entry(
            "5.4", "recomputed each epoch, the rate beats a fixed one",
            "Sec. 7.2, Figs. 3, 4", "89.37 and 87.02 %",
            "accuracy above the fixed one's, gap below; with time decay and without; "
            "apart, against a tuned rate",
        ),
        Entry(
            "5.5", "the rate starts tiny, grows beyond the usual, and falls",
            "Sec. 7.2, 7.3, Figs. 5, 6", "near 1e-8 at first",
            "first below 0.1 in inference mode, largest above 0.5, falling after epoch "
            "10",
        ),
        Entry(
            "5.6", "good accuracy with no rate to tune", "Sec. 7.1, 7.3",
            "99.5 %; 75.99 %", "within 0.2 and 1 points of it, three seeds",
        ),
        Entry(
            "5.7", "it costs little and works with L2, dropout and batch norm, not "
            "with momentum", "Sec. 7.2, 8", "3 s of 24 s",
            "at most 15 % of an epoch; within a point of a tuned rate; momentum loses "
            "more",
        ),
        Entry(
            "5.8", "(added) the rate is a stable one", "Sec. 3, 8", "-",
            "largest eigenvalue below 2 / rate throughout",
        ),
    )
}  # fmt: skip
