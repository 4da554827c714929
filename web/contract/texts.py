"""The shape of text in pictures in the API's documents, as JSON Schema 2020-12."""

from typing import Any

__all__ = ["TEXT_LINES"]

_LINE = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "corners": {
            "type": "array",
            "items": {"type": "number", "minimum": 0, "maximum": 1},
            "minItems": 8,
            "maxItems": 8,
            "description": "x and y of four corners, clockwise from the top left of the text, in "
            "shares of the picture's width and height.",
        },
    },
    "required": ["text", "confidence", "corners"],
    "additionalProperties": False,
}
TEXT_LINES: dict[str, Any] = {
    "type": "array",
    "items": _LINE,
    "description": "The text in the picture, line by line; empty where none is known.",
}
