"""What has been done of which content beyond its embedding: the table that keeps account of it."""

__all__ = ["OFF", "TABLES", "switch_key"]

OFF = "off"  # nobody wants this kind of analysis here

# An analysis belongs to an image, so that a moved or copied file costs nothing. What it has found
# is in tables of its own kind, which a trigger on this one keeps in step: a row that goes, since
# the image does, another version came or the kind was switched off, takes the findings with it.
TABLES = (
    """
    CREATE TABLE analyses (
        image_id INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
        kind TEXT NOT NULL,
        version TEXT NOT NULL,  -- of what did it
        reason TEXT,  -- why it failed; NULL: it did not
        PRIMARY KEY (image_id, kind)
    ) WITHOUT ROWID
    """,
)


def switch_key(kind: str) -> str:
    """Return the key of the library's settings that is ``OFF`` where a kind is switched off."""
    return f"analysis {kind}"
