"""Atomic writes of files, and JSON and YAML documents with their schema number.

A reader never sees half a file: the content is written to a temporary file in the same folder, flushed to disk, and
renamed.
"""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from export.errors import UserError

AnyPath = str | os.PathLike[str]
"""A path as users name it."""
_UMASK = os.umask(0)
os.umask(_UMASK)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it replaces ``path`` if the block succeeds, else it is removed.

    Raises:
        UserError: the file cannot be written (full disk, no permission).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.chmod(0o666 & ~_UMASK)  # some libraries write files that only the owner can read
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}. Free space or name another folder") from error
    finally:
        with suppress(OSError):  # nothing was written if even this fails, e.g. the parent is not a folder
            temporary.unlink()


def finite(value: Any) -> Any:
    """A JSON value with None in the place of numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write ``document`` as indented UTF-8 JSON, with an atomic write."""
    atomic_write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def atomic_write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, with an atomic write."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path, *, what: str, schema: int | tuple[int, ...]) -> dict[str, Any]:
    """Read a JSON document and check its schema number.

    Args:
        path: the file.
        what: name of the document in messages, e.g. "architecture".
        schema: the accepted schema number or numbers.

    Raises:
        UserError: the file is missing, unreadable, not JSON, or of another schema.
    """
    document = read_json_object(path, what=what)
    check_schema(document, path, what=what, schema=schema)
    return document


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8: a file name that is not UTF-8, or half of a surrogate pair, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_schema(document: Mapping[str, Any], path: Path, *, what: str, schema: int | tuple[int, ...]) -> None:
    """Raise UserError if the document of a file has another schema number; arguments as in ``read_json``."""
    number = document.get("schema")
    accepted = (schema,) if isinstance(schema, int) else schema
    if type(number) is not int or number not in accepted:
        readable = " and ".join(map(str, accepted))
        raise UserError(f"{what} file {path} has schema {number!r}; this version reads schema {readable}")


def read_json_object(path: Path, *, what: str) -> dict[str, Any]:
    """Read a JSON object without a schema number, such as a file that a user wrote.

    Raises:
        UserError: the file is missing, unreadable, or not a JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{what} file {path} does not exist") from None
    except OSError as error:
        raise UserError(f"cannot read {what} file {path}: {error.strerror or error}") from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # also for text that is not UTF-8, too long numbers and too deep nesting
        raise UserError(f"{what} file {path} is not valid JSON ({error}): it is damaged or half-written") from None
    if not isinstance(document, dict):
        raise UserError(f"{what} file {path} contains {type(document).__name__}, not a JSON object")
    return document


def read_document(path: Path, *, what: str) -> dict[str, Any]:
    """Read a document that a user wrote: YAML if the file's name ends in .yaml or .yml, else JSON.

    Raises:
        UserError: the file is missing, unreadable, or not an object.
    """
    if path.suffix.lower() not in (".yaml", ".yml"):
        return read_json_object(path, what=what)
    import yaml

    try:
        document = yaml.load(path.read_text(encoding="utf-8-sig"), _yaml_loader())
    except FileNotFoundError:
        raise UserError(f"{what} file {path} does not exist") from None
    except OSError as error:
        raise UserError(f"cannot read {what} file {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{what} file {path} is not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(document, dict) or any(not isinstance(name, str) for name in document):
        raise UserError(f"{what} file {path} is not a list of NAME: VALUE lines")
    return document


def _yaml_loader() -> Any:
    """A YAML loader that reads 1e-3 as a number; YAML 1.1 reads it as text, because it has no decimal point."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    return Loader
