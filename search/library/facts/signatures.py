"""Small grey versions of pictures, in which copies can be told from look-alikes: their table."""

from typing import NamedTuple

__all__ = ["KIND", "TABLES", "StoredSignature"]

KIND = "copies"  # of analysis: what ``analyses`` says of a picture that has a signature

# A signature follows from the content alone. The hash proposes pairs, the grey picture decides.
TABLES = (
    """
    CREATE TABLE signatures (
        image_id INTEGER PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
        hash INTEGER NOT NULL,  -- perceptual, 64 bits with a sign
        sharpness REAL NOT NULL,
        grey BLOB NOT NULL  -- a WebP of 64 x 64 pixels
    )
    """,
    f"""
    CREATE TRIGGER analyses_take_signatures AFTER DELETE ON analyses
    WHEN old.kind = '{KIND}' BEGIN
        DELETE FROM signatures WHERE image_id = old.image_id;
    END
    """,
)


class StoredSignature(NamedTuple):
    """A row of the table, without its image; ``grey`` is a WebP."""

    version: str  # of how it was made
    hash: int
    sharpness: float
    grey: bytes
