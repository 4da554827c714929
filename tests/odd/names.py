"""Make a folder of files with hostile names, and of things in a folder that are not pictures.

Git cannot carry them, so tests make them: ``make_names(folder)``.
"""

import contextlib
import io
import os
import socket
from pathlib import Path

from PIL import Image

MARKUP = "<img src=x onerror=alert(1)>.jpg"
HIDDEN_CHARACTERS = "\u202egpj.exe.jpg"  # shown as gpj.exe reversed, where it is trusted

INDEXED = (
    "plain.jpg", "UPPER.JPG", "photo.JpG", "photo.jpeg", "two.dots..jpg",
    " leading space.jpg", "trailing space .jpg", "-rf.jpg", "--help.jpg", "~.jpg", "$(id).jpg",
    "`id`.jpg", "semi;colon.jpg", "pipe|.jpg", "amp&.jpg", "star*.jpg", "q?.jpg", "[br].jpg",
    "{a,b}.jpg", "%.jpg", "%s%n.jpg", "%2e%2e%2fetc%2fpasswd.jpg",
    "a%00b.jpg", "#hash.jpg", "a+b.jpg", "a=b&c=d.jpg", "back\\slash.jpg", "win\\..\\..\\ini.jpg",
    "quote'.jpg", 'dq".jpg', "'; DROP TABLE images;--.jpg", MARKUP,
    '"><script>alert(1)<&#47;script>.jpg', "' onmouseover='alert(1).jpg",
    "javascript:alert(1).jpg", "{{7*7}}.jpg", "${7*7}.jpg", "<%= 1 %>.jpg", "None.jpg",
    "true.jpg", "1e309.jpg", "CON.jpg", "nul.jpg", "com1.jpg", "image.exe.jpg",
    "new\nline.jpg", "cr\rlf\r\nSet-Cookie: x=1.jpg", "tab\t.jpg", "bell\x07.jpg",
    "esc\x1b[31m.jpg", "del\x7f.jpg", "e\u0301 nfd.jpg", "\u00e9 nfc.jpg", "\u2028 line.jpg",
    "\u200b zero width.jpg", "\ufeff bom.jpg", "\U0001f4f7 emoji.jpg", HIDDEN_CHARACTERS,
    "\u65e5\u672c\u8a9e.jpg", "\u0627\u0644\u0639\u0631\u0628\u064a\u0629.jpg",
    "\ufb01 ligature.jpg", "\u0130stanbul.jpg", "\u00df.jpg", "SS.jpg", "CASE.jpg", "case.jpg",
    "Z\u0351\u036b\u0343 zalgo.jpg", "x" * 251 + ".jpg", "\u65e5" * 83 + ".jpg",
)  # fmt: skip
NOT_UTF8 = (
    b"latin1 \xe9.jpg", b"\xff\xfe.jpg", b"cut \xe2\x82.jpg", b"surrogate \xed\xa0\x80.jpg",
    b"overlong \xc0\xaf.jpg", b"cp1251 \xcf\xf0.jpg", b"sjis \x93\xfa\x96{.jpg",
    b"\xe9 folder/\xe9.jpg",
)  # fmt: skip
DEEP = (b"/".join([b"d" * 200] * 15) + b"/deep.jpg", b"/".join([b"n"] * 300) + b"/n.jpg")
IGNORED = (
    ".hidden.jpg", "._resource.jpg", "....jpg", "..%2f..%2fetc.jpg", "..\\..\\win.jpg",
    "noext", "wrong.txt", "image.jpg.exe",
)  # fmt: skip
LINKS = {
    "link to plain.jpg": "plain.jpg",
    "dangling.jpg": "missing.jpg",
    "first.jpg": "second.jpg",
    "second.jpg": "first.jpg",
    "passwords.jpg": "/etc/passwd",
    "etc": "/etc",
    "memory.jpg": "/proc/self/mem",
    "zeros.jpg": "/dev/zero",
    "loop/here": ".",
    "loop/inner/up": "..",
}


def make_names(folder: Path) -> dict[bytes, str]:
    """Fill a new folder; return each path below it with what indexing should make of it.

    That is ``indexed``, ``failed``, or ``skipped`` for what is not even opened. What the file
    system refuses, as some do names that are not UTF-8, is left out.
    """
    root = os.fsencode(folder)
    made: dict[bytes, str] = {}
    for name in [*map(os.fsencode, INDEXED), *NOT_UTF8, *DEEP]:
        put(root, name, made, "indexed")
    for name in map(os.fsencode, IGNORED):
        put(root, name, made, "skipped")
    (folder / "loop" / "inner").mkdir(parents=True)
    for link, target in LINKS.items():
        (folder / link).symlink_to(target)
    (folder / "loop" / "root").symlink_to(folder)
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "fifo.jpg")
    before = Path.cwd()
    os.chdir(folder)  # the path of a socket must be short
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as opened:
        opened.bind("socket.jpg")
    os.chdir(before)
    others = [*LINKS, "loop/root", "folder.jpg", "fifo.jpg", "socket.jpg"]
    made |= {os.fsencode(name): "skipped" for name in others}
    os.link(folder / "plain.jpg", folder / "hard link.jpg")
    with (folder / "sparse.jpg").open("wb") as file:
        file.truncate(8 << 30)
    for year, seconds in (("1901", -(2**31)), ("2106", 2**32)):
        put(root, f"changed in {year}.jpg".encode(), made, "indexed")
        os.utime(folder / f"changed in {year}.jpg", (seconds, seconds))
    return made | {b"hard link.jpg": "indexed", b"sparse.jpg": "failed"}


def put(root: bytes, name: bytes, made: dict[bytes, str], outcome: str) -> None:
    """Write a picture of a colour of its own, and note it unless the system refuses its name."""
    number, content = len(made), io.BytesIO()
    colour = (number * 37 % 256, number * 91 % 256, number * 13 % 256)
    Image.new("RGB", (32, 24), colour).save(content, "JPEG")
    path = os.path.join(root, name)
    if os.path.lexists(path):  # the file system folds names
        return
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content.getvalue())
        made[name] = outcome
