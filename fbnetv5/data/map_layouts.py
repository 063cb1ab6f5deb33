"""The layouts of published data sets whose labels are maps."""

from fbnetv5.data.cityscapes import CITYSCAPES
from fbnetv5.data.colour_maps import COLOUR_MAPS
from fbnetv5.data.layout import Layout
from fbnetv5.data.nyud import NYUD
from fbnetv5.data.pascal_context import PASCAL_CONTEXT

MAP_LAYOUTS = (
    Layout(
        name="PASCAL-Context",
        looks_like="ImageSets/Context/ and JPEGImages/",
        fits=PASCAL_CONTEXT.fits,
        read=PASCAL_CONTEXT.read,
    ),
    Layout(name="NYUD-v2", looks_like="gt_sets/ and images/", fits=NYUD.fits, read=NYUD.read),
    CITYSCAPES,
    COLOUR_MAPS,
)
