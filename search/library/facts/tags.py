"""Tags: the tables that hold them, and the form in which their names are compared."""

from .folded import fold

__all__ = ["LABELLED", "TABLES", "tag_words"]

# What people say of pictures belongs to contents, as favourites do, and outlasts moves, changes of
# model and removed folders. What follows from it by the model in use can be made again at any time:
# the probes, and the pictures that they find.
TABLES = (
    """
    CREATE TABLE tags (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        folded TEXT NOT NULL UNIQUE,  -- as ``tag_words`` returns it
        prompts TEXT,  -- JSON: what it is called to the model; NULL: it is taught by examples alone
        made_at TEXT NOT NULL  -- ISO 8601, UTC
    )
    """,
    """
    CREATE TABLE tag_examples (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        tag_id INTEGER NOT NULL REFERENCES tags (id) ON DELETE CASCADE,
        hash BLOB NOT NULL,  -- SHA-256 of the content
        is_so INTEGER NOT NULL CHECK (is_so IN (0, 1)),  -- the picture has the tag, or has not
        is_answer INTEGER NOT NULL DEFAULT 0 CHECK (is_answer IN (0, 1)),  -- it was suggested
        marked_at TEXT NOT NULL,  -- ISO 8601, UTC
        UNIQUE (tag_id, hash)
    )
    """,
    """
    CREATE TABLE tag_probes (
        tag_id INTEGER PRIMARY KEY REFERENCES tags (id) ON DELETE CASCADE,
        identity TEXT NOT NULL,  -- SHA-256 of the model's weights
        fitted_to TEXT NOT NULL,  -- digest of what it was fitted to
        scored_to INTEGER NOT NULL,  -- the last embedding that it was compared with
        coefficients BLOB,  -- float32 (d + 1), the bias last; NULL: too few examples
        threshold REAL NOT NULL,  -- probability from which a picture has the tag
        right REAL  -- share of the pictures from there on that have it; NULL: unproven
    )
    """,
    """
    CREATE TABLE tagged (
        tag_id INTEGER NOT NULL REFERENCES tags (id) ON DELETE CASCADE,
        image_id INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
        probability REAL NOT NULL,  -- 1 for what people said
        PRIMARY KEY (tag_id, image_id)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX tagged_image_id ON tagged (image_id)",
)

# What labels found is kept apart: it counts again where what people said is taken back. Libraries
# from before have lost part of it, so they are labelled anew, and all tags with labels made again.
LABELLED = (
    """
    CREATE TABLE tag_labels (
        tag_id INTEGER PRIMARY KEY REFERENCES tags (id) ON DELETE CASCADE,
        threshold REAL NOT NULL,  -- share from which a picture has the label
        right REAL  -- share of the pictures from there on that have it, as it was measured
    )
    """,
    """
    CREATE TABLE labelled (
        tag_id INTEGER NOT NULL REFERENCES tags (id) ON DELETE CASCADE,
        image_id INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
        probability REAL NOT NULL,
        PRIMARY KEY (tag_id, image_id)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX labelled_image_id ON labelled (image_id)",
    """
    INSERT INTO tag_labels SELECT tag_id, threshold, right FROM tag_probes
    JOIN tags ON tags.id = tag_id WHERE prompts IS NOT NULL AND coefficients IS NULL
    """,
    """
    INSERT INTO labelled SELECT tag_id, image_id, probability FROM tagged
    WHERE tag_id IN (SELECT tag_id FROM tag_labels) AND image_id NOT IN (
        SELECT images.id FROM tag_examples JOIN images USING (hash)
        WHERE tag_examples.tag_id = tagged.tag_id
    )
    """,
    """
    UPDATE tag_probes SET fitted_to = ''
    WHERE tag_id IN (SELECT id FROM tags WHERE prompts IS NOT NULL)
    """,
    "UPDATE library SET value = json_set(value, '$.last', 0) WHERE key = 'labels'",
)


def tag_words(name: str) -> str:
    """Return the name of a tag as names of tags are compared: folded, words with one space."""
    return " ".join(fold(name).split())
