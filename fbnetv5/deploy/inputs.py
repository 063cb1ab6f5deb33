"""From an image of any size to the input of an exported network, by its manifest: the bytes that training has."""

from PIL import Image

from export.manifest import Manifest
from export.runners import Array
from fbnetv5.data.fit import Placement, fit_image
from fbnetv5.data.preprocess import normalise


def network_input(image: Image.Image, manifest: Manifest) -> tuple[dict[str, Array], Placement]:
    """An upright RGB image as the input of the network, [1, 3, h, w]; and where it lies in it.

    ``Placement.boxes_to_original`` and ``Placement.map_to_original`` lead from the outputs back to the image's pixels.
    """
    (entry,), steps = manifest.inputs, manifest.preprocessing
    pixels, placement = fit_image(image, steps.resize, steps.fit)
    images = pixels[None] if entry.dtype == "uint8" else normalise(pixels[None])
    return {entry.name: images.contiguous().numpy()}, placement
