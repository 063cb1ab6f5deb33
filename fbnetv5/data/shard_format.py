"""The files of a data set in Parquet shards, in the convention of Hugging Face's ``datasets``.

    DIR/data/train-00000-of-00042.parquet   images to learn from, then those that train policies
    DIR/data/test-00000-of-00005.parquet    the test split
    DIR/index.json                          shards with row groups and checksums, splits, targets and their classes

Columns of a shard; each but the first three may be null, which means "not labelled":

    image           struct (bytes, path): the file as it was, and its name
    width, height   pixels of the image as it is shown
    label           class id
    soft_label      struct (category, probability): lists of class ids and of probabilities, descending
    objects         struct (bbox, category): lists of COCO's (x, y, width, height) in pixels, and of class ids
    ignored_objects likewise, of crowds and difficult objects; only where the data set has some
    mask, ...       struct (bytes, path): a PNG in the format of ``fbnetv5.data.maps``

The schema's metadata has the features in the key "huggingface", so that ``datasets.load_dataset(DIR)`` decodes images
and knows the names of classes (https://huggingface.co/docs/datasets/about_dataset_features), and the targets in the key
"fbnetv5". Corners of boxes are float64, in which width and height of float32 corners lose nothing.

Within a split the rows are in the order of a hash of their names: any range of them is a random sample. Row groups are
small, because one is read as a whole. Pages are not compressed: images are, and labels are small beside them.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, Strict

from export.document import Document, JsonTuple, PlainName
from export.errors import UnavailableError, UserError
from export.files import read_json, write_json
from fbnetv5.data.folder import KINDS
from fbnetv5.data.maps import FORMATS
from fbnetv5.data.targets import IGNORED_BOXES, Target

if TYPE_CHECKING:
    import pyarrow as pa

INDEX = "index.json"
DATA = "data"
SCHEMA: Literal[1] = 1
OWN_KEY, FEATURES_KEY = b"fbnetv5", b"huggingface"
"""Of the metadata of a shard's schema."""
BOX_COLUMNS = {"boxes": "objects", IGNORED_BOXES: "ignored_objects"}
"""By target of boxes, its column."""
SOFT_LABEL = "soft_label"
"""Column of the soft labels."""
SIDES = ("width", "height")


def check_parquet_library() -> None:
    """Raise UnavailableError if pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UnavailableError("Parquet shards need pyarrow: install it with: pip install 'fbnetv5[data]'") from None


class ShardEntry(Document):
    """One shard in the index."""

    title: ClassVar[str] = "shard"
    file: PlainName
    """In ``data/``."""
    groups: JsonTuple[PositiveInt]
    """Number of rows of each row group."""
    size: PositiveInt
    """Bytes of the file."""
    sha256: str

    @property
    def rows(self) -> int:
        """Number of images."""
        return sum(self.groups)


class ShardIndex(Document):
    """``index.json``: the content of a data set in shards."""

    title: ClassVar[str] = INDEX
    kind: Literal["shards"] = "shards"
    schema_number: Literal[1] = Field(default=SCHEMA, alias="schema")
    source_sha256: str
    """Checksum of the images, labels and classes of the data set that was converted."""
    splits: Annotated[tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt], Strict(False)]
    """Rows of each split, in the order of the rows: for weights, policies and test."""
    classes: dict[str, JsonTuple[str]]
    """Names of the classes of each target."""
    shards: JsonTuple[ShardEntry]

    @property
    def targets(self) -> dict[str, Target]:
        """The labels of the images."""
        return {name: Target(kind=KINDS[name], classes=labels) for name, labels in self.classes.items()}


def read_index(root: Path) -> ShardIndex:
    """The index of a data set in shards.

    Raises:
        UserError: it is damaged, of another schema, or contradicts itself.
    """
    path = root / INDEX
    document = read_json(path, what="shard index", schema=SCHEMA)
    try:
        document["shards"] = [ShardEntry(**shard) for shard in document["shards"]]
        index = ShardIndex(**document)
        if sum(index.splits) != sum(shard.rows for shard in index.shards) or not index.classes.keys() <= KINDS.keys():
            raise UserError("its numbers of rows or its targets contradict each other")
    except (UserError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}). Convert the data set again") from None
    return index


def write_index(root: Path, index: ShardIndex) -> None:
    """Write ``index.json``, with an atomic write."""
    write_json(root / INDEX, {"schema": SCHEMA, **index.model_dump(mode="json", exclude={"schema_number"})})


def column_of(target: str) -> str:
    """The column with the labels of a target."""
    return BOX_COLUMNS.get(target, target)


def columns_of(targets: Collection[str]) -> list[str]:
    """The columns that contain images with the labels of some targets."""
    return ["image", *SIDES, *map(column_of, targets)]


def own_metadata(classes: Mapping[str, tuple[str, ...]]) -> bytes:
    """The value of ``OWN_KEY``."""
    document = {"kind": "shard", "schema": SCHEMA, "classes": {name: list(names) for name, names in classes.items()}}
    return json.dumps(document, ensure_ascii=False, sort_keys=True).encode()


def arrow_schema(classes: Mapping[str, tuple[str, ...]]) -> "pa.Schema":
    """The Arrow schema of a shard with both metadata.

    Args:
        classes: names of the classes of each target.
    """
    import pyarrow as pa

    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    objects = pa.struct({"bbox": pa.list_(pa.list_(pa.float64(), 4)), "category": pa.list_(pa.int64())})
    types = {"image": image, "width": pa.int32(), "height": pa.int32()}
    types |= {column_of(name): image for name in classes if name in FORMATS}
    types |= {column: objects for target, column in BOX_COLUMNS.items() if target in classes}
    types |= {"label": pa.int64()} if "label" in classes else {}
    soft = pa.struct({"category": pa.list_(pa.int64()), "probability": pa.list_(pa.float32())})
    types |= {SOFT_LABEL: soft} if SOFT_LABEL in classes else {}
    columns = columns_of(classes)
    features = json.dumps({"info": {"features": _features(classes)}}, ensure_ascii=False).encode()
    metadata = {FEATURES_KEY: features, OWN_KEY: own_metadata(classes)}
    return pa.schema([(name, types[name]) for name in columns], metadata=metadata)


def _features(classes: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """The columns as features of ``datasets``; lists are called Sequence, which its versions before 4 read as well."""
    side, image = {"dtype": "int32", "_type": "Value"}, {"_type": "Image"}
    features: dict[str, Any] = {"image": image, "width": side, "height": side}
    for name, labels in classes.items():
        class_label = {"names": list(labels), "_type": "ClassLabel"}
        if name == "label":
            features[name] = class_label
        elif name in BOX_COLUMNS:
            class_label = {"names": list(classes["boxes"]), "_type": "ClassLabel"}
            box = {"feature": {"dtype": "float64", "_type": "Value"}, "length": 4, "_type": "Sequence"}
            boxes, categories = ({"feature": part, "_type": "Sequence"} for part in (box, class_label))
            features[column_of(name)] = {"bbox": boxes, "category": categories}
        elif name == SOFT_LABEL:
            parts = {"category": class_label, "probability": {"dtype": "float32", "_type": "Value"}}
            features[name] = {key: {"feature": part, "_type": "Sequence"} for key, part in parts.items()}
        else:
            features[name] = image
    return features
