"""Read the files of captions, labels and classes."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fovea.search.clip.errors import ModelError

FILE_FIELDS = ("file", "filepath", "image")
CAPTION_FIELDS = ("captions", "caption", "title", "text")


def read_captions(path: Path, split: str | None = None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (file, captions) from JSON Lines, TSV or CSV; only lines of ``split`` if it is given.

    Fields or columns are ``file`` and ``captions`` or ``caption``. Captions are stripped; a line
    without one yields "".
    """
    for number, row in _rows(path, split):
        file, texts = first_of(row, FILE_FIELDS), texts_of(first_of(row, CAPTION_FIELDS))
        if not isinstance(file, str) or texts is None:
            raise ModelError(f"{path}, line {number}: needs 'file' and 'captions', both text")
        yield file, texts


def read_labels(path: Path, split: str | None = None) -> Iterator[tuple[str, int]]:
    """Yield (file, label) from JSON Lines with ``file``, ``label`` and an optional ``split``."""
    for number, row in _rows(path, split):
        file, label = first_of(row, FILE_FIELDS), row.get("label")
        if not isinstance(file, str) or not str(label).isdecimal():
            raise ModelError(f"{path}, line {number}: needs 'file' and a whole number 'label'")
        yield file, int(str(label))


def read_classes(path: Path) -> dict[int, tuple[str, ...]]:
    """Read the names of each label from a JSON list of objects with ``label`` and ``names``."""
    try:
        listed = json.loads(path.read_text("utf-8-sig"))
        classes = {int(entry["label"]): texts_of(entry["names"]) or () for entry in listed}
    except OSError as exc:
        raise ModelError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise ModelError(
            f"cannot read the classes in {path}: {exc!r}; it should be a list of "
            '{"label": 0, "names": ["cat"]}'
        ) from exc
    named = {label: tuple(filter(None, names)) for label, names in classes.items() if any(names)}
    if missing := sorted(classes.keys() - named.keys()):
        raise ModelError(f"{path}: class {missing[0]} has no names")
    return named


def finder(words: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that matches any of these whole words or phrases, ignoring case.

    ``*`` stands for any further letters: "snow*" also matches "snowy".
    """
    parts = (re.escape(word.strip()).replace(r"\*", r"\w*") for word in words)
    return re.compile(rf"\b(?:{'|'.join(parts)})\b", re.IGNORECASE)


def _rows(path: Path, split: str | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and fields of each line of a split, from JSON Lines or a table with a header."""
    rows: Iterable[tuple[int, dict[str, Any]]]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == ".csv":
                rows = enumerate(csv.DictReader(file), start=2)
            elif path.suffix.lower() == ".tsv":
                table = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
                unquoted = ({n: _unquoted(value) for n, value in row.items()} for row in table)
                rows = enumerate(unquoted, start=2)
            else:
                rows = _json_rows(path, file)
            yield from (row for row in rows if split is None or row[1].get("split") == split)
    except (OSError, ValueError, csv.Error) as exc:
        reason = exc.strerror or exc if isinstance(exc, OSError) else exc
        raise ModelError(f"cannot read {path}: {reason}") from exc


def _json_rows(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as exc:
            raise ModelError(f"{path}, line {number}, is not JSON: {exc}") from exc
        if not isinstance(row, dict):
            raise ModelError(f"{path}, line {number}: a JSON object was expected")
        yield number, row


def _unquoted(value: Any) -> Any:
    """Remove the quotes that some programs put around a field of a TSV file.

    Most put none, so a lone quote must not swallow the following lines, as it would in CSV.
    """
    if not isinstance(value, str) or len(value) < 2 or value[0] + value[-1] != '""':
        return value
    inner = value[1:-1]
    return value if '"' in inner.replace('""', "") else inner.replace('""', '"')


def first_of(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    """Return the first of these fields that is present and not empty, else None."""
    return next((row[name] for name in names if row.get(name)), None)


def texts_of(value: Any) -> tuple[str, ...] | None:
    """Return the captions in a field, stripped; "" for a missing one, None if it is not text."""
    texts = value if isinstance(value, list) else ["" if value is None else value]
    if not all(isinstance(text, str) for text in texts):
        return None
    return tuple(text.strip() for text in texts)
