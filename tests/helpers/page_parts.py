"""What the tests of one subject share."""

BOX = "input[name=q]"


def focused(page) -> int:
    """The index of the picture that has the focus, -1 for none."""
    return page.evaluate("+(document.activeElement.closest('.tile')?.dataset.index ?? -1)")


def open_first(page) -> None:
    page.click(".tile[data-index='0'] .tile-open")
    page.wait_for_selector("#detail[data-state=ready]")
