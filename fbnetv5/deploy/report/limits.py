"""What the figures of a page do not show: the last section of every page."""

from fbnetv5.deploy.report.files import RunFiles

SEARCH = (
    "The weights are inherited from the shared weights of the search. Metrics of such weights rank networks; trained "
    "networks reach other values. fbnetv5 train gives them.",
    "The network was chosen by a fit to losses on held-out images: its loss there may be a little too good.",
    "One run has one seed. Another seed finds another network of similar quality.",
)
LATER_TASK = (
    "Only the head learned from the labels of this task. The trunk learned the other tasks of the search, and its "
    "weights are inherited as they are. fbnetv5 train gives the metric of the trained network.",
    SEARCH[1],
    SEARCH[2],
)
BRANCH = (
    "The weights are inherited from the search. fbnetv5 train gives the metrics of the trained network.",
    "The log-probability of a tree says how much the routing prefers it, not how accurate its network is.",
    "One run has one seed. Another seed may part the tasks at other layers.",
)
NARS = (
    "The trials are short trainings. A pair that is best after these steps need not be best after a long training.",
    "The best pair was chosen by its metric on held-out images: its value there is a little too good.",
    "The predictor's quality is measured on the trials, which lie where the search looked, not on the whole space.",
)
TRAINING = (
    "The best weights were chosen by the held-out images: the metric there is a little too good. The figures on the "
    "test images are not affected.",
    "One training has one seed; another one ends at a slightly different metric.",
)
LABEL = (
    "Labels of teachers have errors, and these counts do not show them: look at the drawn images, and at more of them.",
    "A threshold removes labels below a confidence. It does not remove confident errors.",
)
DERIVATION = ("A derived network was not searched for again, and a pair without weights was not trained.",)
OF_KIND = {
    "search": SEARCH,
    "later-task": LATER_TASK,
    "branch": BRANCH,
    "nars": NARS,
    "training": TRAINING,
    "label": LABEL,
    "derivation": DERIVATION,
}


def limits(files: RunFiles) -> list[str]:
    """The sentences of a run's page."""
    sentences = list(OF_KIND.get(files.kind, ()))
    if files.kind == "label":
        return sentences
    sentences.append("A few drawn images say little about a network. The metrics are over all test or held-out images.")
    if files.run.data.folder is None:
        sentences.append("The images are the built-in demo scenes. Figures on them say nothing about other images.")
    if any(network.cost.latency_ms is not None for network in files.architectures.values()):
        sentences.append(
            "A predicted latency is a sum of the blocks of a latency table. It holds for the device, the runtime and "
            "the precision of that table, see the page of the table."
        )
    if files.exports:
        sentences.append("A measured latency holds for the machine of the export, on which nothing else should run.")
    sentences.append(
        "Multiply-adds are no latency: two networks of equal multiply-adds may differ in time by a factor."
    )
    return sentences
