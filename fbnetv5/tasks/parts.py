"""Parts: the part of an object, such as head or torso, that every pixel shows.

It is segmentation with a target and classes of its own (``fbnetv5.tasks.segmentation``). An image without parts, such
as one that shows no person, is not labelled: neither loss nor metric uses it, as in ASTMT (arXiv 1904.08918).
"""

from fbnetv5.tasks.segmentation import Segmentation


class PartSegmentation(Segmentation):
    """One target, the class map of parts, in which class 0 is usually everything else."""

    name = "parts"
    order = 8
    by_default = False
    targets = ("parts",)
