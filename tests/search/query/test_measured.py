import json
import logging

import pytest

from fovea.search.query.measured import FILE, LabelSigns, Measured, Signs, Worth, measured_in

MODEL = "m" * 64
SIGNS = Signs((4.0, 1.0, 0.1), -6.0, 0.1, Worth(0.8, 0.45, 200))
WHOLE = Measured(MODEL, (0.1, -0.2), SIGNS, SIGNS, LabelSigns(0.4, 0.7, 0.5))


@pytest.mark.parametrize(
    "told, chance, answers, drawn",
    [
        (0.75, 0.45, 200, True),
        (0.52, 0.45, 200, False),  # no line at all would tell half of them
        (0.56, 0.45, 200, False),  # within two standard errors of a half
        (0.56, 0.45, 2000, True),
        (0.7, 0.69, 2000, False),
    ],
)
def test_a_line_is_drawn_where_it_is_better_than_chance_and_than_none(told, chance, answers, drawn):
    assert Worth(told, chance, answers).is_drawn == drawn


def test_labels_are_shown_where_three_in_five_are_right():
    assert LabelSigns(0.4, 0.6, 0.5).are_shown and not LabelSigns(0.4, 0.59, 0.5).are_shown


@pytest.mark.parametrize("signs", [WHOLE, Measured(MODEL, (0.5,), SIGNS), Measured(MODEL, ())])
def test_what_was_measured_is_read_beside_the_weights(signs, tmp_path):
    (tmp_path / FILE).write_text(json.dumps(signs.to_dict()))
    (tmp_path / "model.safetensors").touch()
    for place in (tmp_path, tmp_path / "model.safetensors"):
        assert measured_in(place, MODEL, len(signs.centre)) == signs


def test_a_model_that_was_never_measured_has_no_signs(tmp_path, caplog):
    assert measured_in(tmp_path, MODEL, 2) is None and not caplog.records


@pytest.mark.parametrize(
    "change",
    [
        {"identity": "n" * 64},
        {"centre": [1.0, "x"]},
        {"centre": [float("nan")]},
        {"centre": [0.1, 0.2, 0.3]},  # of another width
        {"words": {"weights": [1.0]}},
        {"words": WHOLE.to_dict()["words"] | {"weights": [1.0, 2.0]}},
        {"words": WHOLE.to_dict()["words"] | {"spread": 0}},
        {"words": WHOLE.to_dict()["words"] | {"worth": {"told": 2, "chance": 0, "answers": 9}}},
        {"words": WHOLE.to_dict()["words"] | {"worth": {"told": 1, "chance": 0, "answers": 0}}},
        {"words": WHOLE.to_dict()["words"] | {"worth": {"told": 1, "chance": 0, "answers": 1e999}}},
        {"words": WHOLE.to_dict()["words"] | {"bias": 10**400}},
        {"words": WHOLE.to_dict()["words"] | {"weights": "123"}},
        *({name: empty} for name in ("words", "labels") for empty in ([], {}, 0, False, "")),
        {"labels": [1, 2]},
        {"labels": {"threshold": float("nan"), "right": 0.9, "shown": 0.5}},
        {"labels": {"threshold": 0.1, "right": 1.5, "shown": 0.5}},
    ],
)
def test_what_is_unsound_or_of_other_weights_is_ignored(change, tmp_path, caplog):
    (tmp_path / FILE).write_text(json.dumps(WHOLE.to_dict() | change))
    with caplog.at_level(logging.WARNING):
        assert measured_in(tmp_path, MODEL, 2) is None
    [record] = caplog.records
    assert record.getMessage().startswith(f"ignoring {tmp_path / FILE}: ")


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', "[" * 100_000, "1" * 5000])
def test_a_file_that_is_not_an_object_is_ignored(text, tmp_path, caplog):
    (tmp_path / FILE).write_text(text)
    assert measured_in(tmp_path, MODEL, 2) is None and len(caplog.records) == 1
