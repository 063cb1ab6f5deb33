"""The layouts of a user's folder: the one for several tasks, and those that public data sets and tools use.

Each layout has a module with its tree: ``folder`` (several tasks), ``shards`` (Parquet), ``coco``, ``ade20k`` and
``image_folder``; ``map_layouts`` lists those of published maps, and ``annotation_layouts`` those with other annotation
files.

The layout is recognised by the folder's content. A validation split of the data set becomes the test split, and the
other images are divided as in ``fbnetv5.data.splits``. Splits called val, valid, validation, test or testing, in upper
or lower case, count as validation splits. A validation split without labels is ignored: no metric could be computed.

Left out: hidden folders and files, as the copies that notebooks make.
"""

from pathlib import Path

from export.errors import UserError
from fbnetv5.data.ade20k import ADE20K, is_ade20k
from fbnetv5.data.annotation_layouts import ANNOTATION_LAYOUTS
from fbnetv5.data.coco import is_coco, read_coco
from fbnetv5.data.folder import has_maps, read_several_tasks
from fbnetv5.data.header_index import header_index
from fbnetv5.data.image_folder import IMAGE_FOLDER
from fbnetv5.data.labelled_images import LabelledImages, check_class_names
from fbnetv5.data.layout import Layout
from fbnetv5.data.map_layouts import MAP_LAYOUTS
from fbnetv5.data.metadata_folder import METADATA_FOLDER, has_label_columns
from fbnetv5.data.opened import opened
from fbnetv5.data.other_layouts import refuse_other_layout
from fbnetv5.data.remarks import remarks
from fbnetv5.data.shards import is_sharded, read_shards


def layout_of(root: Path) -> Layout:
    """The layout of a folder.

    Raises:
        UserError: it does not exist, or has none of the layouts; the message names the one that it looks like.
    """
    if not root.is_dir():
        raise UserError(f"folder {root} does not exist")
    if (layout := find_layout(root)) is not None:
        return layout
    refuse_other_layout(root)
    layouts = "; ".join(f"{layout.name}: {layout.looks_like}" for layout in LAYOUTS)
    raise UserError(f"{root} has none of the known layouts. {layouts}")


def normal_path(root: Path) -> Path:
    """The absolute path of a folder, without "..": layouts look for names such as "images", and hidden ones, in it.

    What ".." means behind a link, only the folder that the link leads to tells.
    """
    return root.resolve() if ".." in root.parts else root.absolute()


def find_layout(root: Path) -> Layout | None:
    """The first layout that fits an existing folder, None where none does.

    Raises:
        UserError: only ImageFolder fits, and the folder has the marks of another layout; or label maps beside images
            fit, and another layout whose labels would not be read.
    """
    root = normal_path(root)
    layout = next((layout for layout in LAYOUTS if layout.fits(root)), None)
    if layout is not None and layout is IMAGE_FOLDER:
        refuse_other_layout(root)
    if layout is not None and layout is SEVERAL_TASKS and not (root / "instances.json").exists():
        _refuse_second_layout(root)
    return layout


def _refuse_second_layout(root: Path) -> None:
    """Raise UserError if a folder with label maps beside its images has annotations in another layout too.

    Metadata without labels are none: with labels the folder would not be one of label maps.
    """
    others = LAYOUTS[LAYOUTS.index(SEVERAL_TASKS) + 1 : LAYOUTS.index(IMAGE_FOLDER)]
    fitting = (layout for layout in others if layout is not METADATA_FOLDER and layout.fits(root))
    if (other := next(fitting, None)) is not None:
        raise UserError(
            f"{root} has folders of label maps beside images/, such as masks/, and is {other.name} too; only one of "
            f"both can be read. Move the maps away to read {other.name}, or write its labels into instances.json"
        )


def open_folder(root: Path) -> LabelledImages:
    """The data set in a folder of any layout, with all of its labels; a command reads it once.

    Raises:
        UserError: the layout is unknown, or something in the folder is wrong.
    """
    return opened(normal_path(root), _read)


def _read(root: Path) -> LabelledImages:
    layout = layout_of(root)
    with header_index(root) as headers:
        data = layout.read(root, headers)
    check_class_names(data, root)
    if layout.has_files:
        data.notes += tuple(remarks(root, data))
    return data


def _is_several_tasks(root: Path) -> bool:
    if not (root / "images").is_dir():
        return False
    if (root / "instances.json").exists():
        return True
    if has_label_columns(root):  # which may name the maps
        return False
    return (root / "masks").is_dir() or (has_maps(root) and not is_coco(root) and not is_ade20k(root))


SEVERAL_TASKS = Layout(
    name="several tasks",
    looks_like="images/ beside instances.json, masks/, parts/, saliency/, edges/, depth/ or normals/",
    fits=_is_several_tasks,
    read=read_several_tasks,
)
LAYOUTS = (
    Layout(
        name="Parquet shards",
        looks_like="index.json and data/ with .parquet files, as fbnetv5 convert writes them",
        fits=is_sharded,
        read=read_shards,
        has_files=False,
    ),
    *MAP_LAYOUTS,
    SEVERAL_TASKS,
    Layout(
        name="COCO",
        looks_like="annotations/instances_SPLIT.json, annotations/SPLIT.json or SPLIT/_annotations.coco.json, and the "
        "images in SPLIT/ or images/",
        fits=is_coco,
        read=read_coco,
    ),
    ADE20K,
    *ANNOTATION_LAYOUTS,
    IMAGE_FOLDER,
)
"""The first layout that fits is used."""
