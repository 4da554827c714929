"""Names of places: the tables that hold them, and the form in which they are compared."""

import re

from .folded import fold

__all__ = ["DATA", "OFF", "TABLES", "place_words"]

DATA = "places"  # a key of the library's settings: the data that its places are from, or OFF
OFF = "off"  # nobody wants the names of places here
_BETWEEN = re.compile(r"[\s\-\u2010-\u2015'’ʼ`´.·・,，、()（）/]+")

# A picture's coordinates follow from its content, and its place from them: it is found once, and
# again only where the coordinates or the data change. A library has few places and fewer towns, so
# it has the names of these itself, in all languages, and no query needs the data.
TABLES = (
    """
    CREATE TABLE localities (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE,  -- of a town its number in the data, else as in PT.14 and PT
        kind TEXT NOT NULL CHECK (kind IN ('town', 'region', 'country')),
        name TEXT NOT NULL,
        chinese TEXT  -- its name in simplified Chinese, if that is known
    )
    """,
    """
    CREATE TABLE locality_names (
        name TEXT NOT NULL,  -- as ``place_words`` returns it
        locality_id INTEGER NOT NULL REFERENCES localities (id) ON DELETE CASCADE,
        PRIMARY KEY (name, locality_id)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE places (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE,  -- JSON: its towns' numbers in the data, the nearest first
        town_id INTEGER NOT NULL REFERENCES localities (id),  -- the nearest
        city_id INTEGER REFERENCES localities (id),  -- another town, which reaches there
        region_id INTEGER REFERENCES localities (id),
        country_id INTEGER NOT NULL REFERENCES localities (id)
    )
    """,
    """
    CREATE TABLE place_localities (  -- those by whose names a place is found
        place_id INTEGER NOT NULL REFERENCES places (id) ON DELETE CASCADE,
        locality_id INTEGER NOT NULL REFERENCES localities (id) ON DELETE CASCADE,
        PRIMARY KEY (locality_id, place_id)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE placed (
        image_id INTEGER PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
        place_id INTEGER REFERENCES places (id) ON DELETE CASCADE  -- NULL: no town is near
    )
    """,
    "CREATE INDEX placed_place_id ON placed (place_id)",
    "CREATE INDEX images_located ON images (id) "
    "WHERE latitude IS NOT NULL AND longitude IS NOT NULL",
    """
    CREATE TRIGGER images_change_places AFTER UPDATE OF latitude, longitude ON images
    WHEN old.latitude IS NOT new.latitude OR old.longitude IS NOT new.longitude BEGIN
        DELETE FROM placed WHERE image_id = new.id;
    END
    """,
)


def place_words(name: str) -> str:
    """Return the name of a place as names of places are compared: folded, words with one space.

    Hyphens, apostrophes, points and commas count as spaces: ``Saint-Denis`` is ``saint denis``.
    """
    return " ".join(_BETWEEN.sub(" ", fold(name)).split())
