"""The menus for filters: what they show, what they change, and the tree of folders."""

import pytest

from browsing import BOX, violations, visited

PHONES = {"has_touch": True, "is_mobile": True, "reduced_motion": "reduce"}
TREE = "#folder-tree [role=treeitem]"


def labels(page) -> list[str]:
    return page.locator(".chip.is-filter .chip-name").all_inner_texts()


def wait_for_query(page, text) -> None:
    page.wait_for_function(
        "text => new URLSearchParams(location.search).get('q') === text", arg=text
    )


def wait_for_menus(page, **expected) -> None:
    page.wait_for_function(
        """expected => Object.entries(expected).every(([name, value]) => name === "folder"
            ? document.querySelector("[data-part=folder-name]").textContent === value
            : document.getElementById("filters").elements[name].value === value)""",
        arg=expected,
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("on:2019", {"from": "2019-01-01", "to": "2019-12-31"}),
        ("dog after:2019", {"from": "2020-01-01", "to": ""}),
        ("before:2020-05", {"from": "", "to": "2020-04-30"}),
        ("-after:2019 on:2019-02", {"from": "2019-02-01", "to": "2019-02-28"}),
        ("-on:2019", {"from": "", "to": ""}),
        ("camera:iph", {"camera": "iph"}),
        ('camera:"PIXEL 7" IS:Portrait', {"camera": "Pixel 7", "shape": "portrait"}),
        ("format:.jpg sort:Name", {"format": "JPEG", "sort": "name"}),
        ("in:holidays name:a*", {"folder": "holidays"}),
    ],
)
def test_the_menus_show_what_is_set_however_it_was(browser, albums, text, shown):
    with visited(browser, albums[0]) as page:
        page.wait_for_selector(".tile img")
        assert page.is_hidden("[type=reset]")
        page.fill(BOX, text)
        page.wait_for_selector("[type=reset]")  # it can be seen
        wait_for_menus(page, **shown)
        page.keyboard.press("Enter")
        page.wait_for_selector(".is-filter, #filters [value=name]:checked", state="attached")
        wait_for_menus(page, **shown)
        page.reload()
        wait_for_menus(page, **shown)
        page.click("[type=reset]")
        wait_for_menus(page, **dict.fromkeys(shown, "") | ({"folder": "Any folder"}))
        assert page.is_hidden("[type=reset]") and labels(page) == []


def test_one_date_is_changed_and_the_other_stays(browser, albums):
    with visited(browser, f"{albums[0]}/?q=dog+on:2019+-on:2019-03") as page:
        wait_for_menus(page, **{"from": "2019-01-01", "to": "2019-12-31"})
        page.fill("#filters [name=to]", "2020-02-01")
        wait_for_query(page, "dog -on:2019-03 -after:2020-02-01 -before:2019-01-01")
        wait_for_menus(page, **{"from": "2019-01-01", "to": "2020-02-01"})
        page.fill("#filters [name=from]", "")
        wait_for_query(page, "dog -on:2019-03 -after:2020-02-01")
        page.wait_for_function("() => document.querySelectorAll('.is-filter').length === 2")
        assert labels(page) == ["not March 2019", "until Feb 1, 2020"]


def top(page) -> float:
    return page.evaluate("document.getElementById('grid').getBoundingClientRect().top")


@pytest.mark.parametrize("width", [1280, 900, 375, 320])
def test_the_first_filter_and_clearing_leave_the_pictures_where_they_are(browser, albums, width):
    options = {"viewport": {"width": width, "height": 800}} | (PHONES if width < 400 else {})
    with visited(browser, albums[0], **options) as page:
        page.wait_for_selector(".tile img")
        if width < 700:
            page.click("#show-filters")
        before = top(page)
        page.select_option("#filters [name=shape]", "landscape")
        page.wait_for_selector(".is-filter")
        page.wait_for_selector("#grid .tile")
        assert page.is_visible("[type=reset]")
        assert top(page) == before
        page.click("[type=reset]")
        page.wait_for_selector(".is-filter", state="detached")
        wait_for_menus(page, shape="")
        assert top(page) == before


EDGES = """(one) => {
    const { left, right } = one.getBoundingClientRect();
    return [left, right];
}"""


@pytest.mark.parametrize("width", [1280, 375, 320])
def test_the_menus_are_of_one_width_and_inside_the_page(browser, albums, width):
    options = {"viewport": {"width": width, "height": 800}} | (PHONES if width < 400 else {})
    with visited(browser, f"{albums[0]}/?q=on:2019", **options) as page:
        page.wait_for_selector(".tile img")
        if width < 700:
            page.click("#show-filters")
        places = page.eval_on_selector_all(
            "#filters select, #filters > label, .folder-button",
            f"all => all.map({EDGES})",
        )
        grid = page.eval_on_selector("#grid", EDGES)
        assert all(grid[0] <= left < right <= grid[1] + 1 for left, right in places), (grid, places)
        menus = page.eval_on_selector_all(
            "#filters select, .folder-button"
            + (", #filters input[type=date]" if width > 700 else ""),
            "all => all.map((one) => Math.round(one.getBoundingClientRect().width))",
        )
        assert len(set(menus)) == 1, menus


# Folders


def active(page) -> str:
    return page.evaluate("document.activeElement.getAttribute('aria-label')")


@pytest.fixture
def tree(browser, albums):
    """A page whose menu of folders is open, and the folder of its library."""
    with visited(browser, albums[0]) as page:
        page.wait_for_selector(".tile img")
        page.focus("#folder-menu button")
        page.keyboard.press("Enter")
        page.wait_for_selector(f"{TREE} {TREE.split()[-1]}")
        yield page, albums[1]


def test_a_folder_is_chosen_by_keys(tree):
    page, folder = tree
    assert active(page) == "Find a folder"
    page.keyboard.press("ArrowDown")
    assert active(page) == "Photos, 12 pictures"
    page.keyboard.press("ArrowRight")  # it is open, so to the first in it
    assert active(page) == "family, 3 pictures"
    page.keyboard.press("ArrowDown")
    assert active(page) == "holidays, 6 pictures"
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(f"{TREE}[aria-label^='2019 Portugal']")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert active(page) == "2020 Norway, 3 pictures"
    page.keyboard.press("ArrowLeft")
    assert active(page) == "holidays, 6 pictures"
    page.keyboard.press("ArrowLeft")
    assert page.get_attribute(f"{TREE}[aria-label^=holidays]", "aria-expanded") == "false"
    page.keyboard.press("End")
    assert active(page) == "work, 3 pictures"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    wait_for_query(page, f"in:{folder}/holidays")
    page.wait_for_selector(".is-filter")
    assert labels(page) == ["in holidays"]
    assert page.is_hidden("#folder-popup")
    assert page.evaluate("document.activeElement.name") == "folder"
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{TREE}[aria-selected=true][aria-label^=holidays]")
    page.keyboard.press("ArrowDown")  # the tree is open down to it
    assert active(page) == "holidays, 6 pictures"
    page.keyboard.press("Enter")  # once more: any folder
    page.wait_for_function("() => !location.search")
    page.keyboard.press("Enter")
    page.wait_for_selector("#folder-popup:not([hidden])")
    page.keyboard.press("Escape")
    assert page.is_hidden("#folder-popup")
    assert page.evaluate("document.activeElement.name") == "folder"


def test_a_folder_is_found_by_its_name(tree):
    page, folder = tree
    page.keyboard.type("portu")
    page.wait_for_selector(f"{TREE}[aria-label='2019 Portugal, Photos/holidays, 3 pictures']")
    assert page.locator(TREE).count() == 2
    page.keyboard.press("Enter")
    wait_for_query(page, f"in:{folder}/family/Portugal")
    page.click("#folder-menu button")
    page.keyboard.type("nowhere")
    page.wait_for_selector("#folder-popup [role=status]:has-text('No folder has such a name.')")
    page.mouse.click(1200, 700)
    page.wait_for_selector("#folder-popup", state="hidden")
    page.keyboard.press("Escape")
    page.click("#folder-menu button")  # a second folder takes the place of the first
    page.click(f"{TREE}[aria-label^=work] .folder-row")
    wait_for_query(page, f"in:{folder}/work")


def test_the_pointer_opens_and_closes_a_level(tree):
    page, _ = tree
    page.click(f"{TREE}[aria-label^=family] .folder-twisty")
    page.wait_for_selector(f"{TREE}[aria-label^='Portugal']")
    page.click(f"{TREE}[aria-label^=family] .folder-twisty >> nth=0")
    page.wait_for_selector(f"{TREE}[aria-label^='Portugal']", state="hidden")
    assert page.is_visible("#folder-popup")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_chips_and_tree(browser, albums, scheme):
    text = "dog+in:holidays+-is:square+on:2019+cat+-camera:pixel"
    options = {"color_scheme": scheme, "reduced_motion": "reduce"}
    with visited(browser, f"{albums[0]}/?q={text}", **options) as page:
        page.wait_for_selector(".is-filter")
        page.click("#folder-menu button")
        page.wait_for_selector(TREE)
        assert violations(page) == []
        page.keyboard.type("p")
        page.wait_for_selector(".folder-above")
        assert violations(page) == []


@pytest.mark.parametrize("width", [375, 320])
def test_a_phone_has_room_for_chips_and_tree(browser, albums, width):
    options = PHONES | {"viewport": {"width": width, "height": 640}}
    text = "dog+in:holidays+-near:48.2,16.4,5km+on:2019+-camera:pixel"
    with visited(browser, f"{albums[0]}/?q={text}", **options) as page:
        page.wait_for_selector(".is-filter")
        page.click("#show-filters")
        page.click("#folder-menu button")
        page.wait_for_selector(TREE)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        for one in (".chip", "#folder-popup", TREE):
            right = "all => Math.max(...all.map((one) => one.getBoundingClientRect().right))"
            assert page.eval_on_selector_all(one, right) <= width, one
        assert violations(page) == []
