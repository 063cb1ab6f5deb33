"""The layout of ADE20K's scene-parsing benchmark (Zhou et al., arXiv:1608.05442): segmentation.

    images/training/NAME.jpg        validation/ likewise
    annotations/training/NAME.png   class ids
    objectInfo150.txt               the names of the classes, if the file exists

0 in a mask is an unlabelled pixel and class ids start at 1, as in the benchmark. Masks in which 0 is a class of its own
need the layout for several tasks.
"""

from pathlib import Path

from export.errors import UserError
from fbnetv5.data.folder import add_maps, list_images, numbered_classes
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.layout import Layout, split_folders
from fbnetv5.data.split_names import TRAINING, VALIDATION, as_test_split
from fbnetv5.data.targets import CLASS_MAP, Target

ADE20K_NAMES = "objectInfo150.txt"


def is_ade20k(root: Path) -> bool:
    return bool(split_folders(root / "images", TRAINING) and split_folders(root / "annotations", TRAINING))


def read_ade20k(root: Path, headers: HeaderIndex) -> LabelledImages:
    """A folder of ADE20K's layout; images are named SPLIT/FILE."""
    images: dict[str, ImageRecord] = {}
    test: set[str] = set()
    for folder in split_folders(root / "images", TRAINING + VALIDATION):
        records = list_images(folder, headers)
        annotations, is_test = root / "annotations" / folder.name, folder.name.lower() in VALIDATION
        if not add_maps(annotations, "mask", records, headers):
            if is_test:
                continue
            raise UserError(f"{annotations} has no mask of any image: a mask is a .png of its image's name")
        images |= {f"{folder.name}/{name}": image for name, image in records.items()}
        if is_test:
            test |= {f"{folder.name}/{name}" for name in records}
    classes = _ade20k_names(root) or numbered_classes("mask", images, headers)[1:]
    targets = {"mask": Target(kind=CLASS_MAP, classes=classes)}
    return LabelledImages(images, targets, test=as_test_split(test, images), zero_is_ignored=True)


def _ade20k_names(root: Path) -> tuple[str, ...]:
    """The last column of ``objectInfo150.txt`` after its heading, distinct; () where there is no such file."""
    path = root / ADE20K_NAMES
    if not path.exists():
        return ()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()[1:]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error}). Save it as such") from None
    names = tuple(line.rpartition("\t")[2].strip() for line in lines if line.strip())
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{path} names {repeated[0]!r} twice. Give each class a name of its own")
    return names


ADE20K = Layout(
    name="ADE20K",
    looks_like="images/training/ and annotations/training/ with a mask .png of each image's name",
    fits=is_ade20k,
    read=read_ade20k,
)
