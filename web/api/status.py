"""How the library and the program are doing."""

from typing import Any

from flask import Blueprint

from ..engine import engine

blueprint = Blueprint("status", __name__)


@blueprint.get("/health")
def health() -> dict[str, str]:
    """Say that the server answers."""
    return {"status": "ok"}


@blueprint.get("/api/status")
def status() -> dict[str, Any]:
    """Describe the library."""
    library = engine().library
    counts, model = library.counts(), library.model()
    return {
        "model": model.name if model else None,
        "images": counts.images,
        "embeddings": counts.embeddings,
        "files": counts.files,
        "roots": len(library.roots()),
    }
