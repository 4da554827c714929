"""Hints about languages: given where it is sure, and never for English or for names."""

import json

import pytest

from fovea.data import BUNDLED
from fovea.search.library.library import Library
from fovea.search.models.languages import MANY, languages_of
from fovea.search.models.resolve import resolve_model
from fovea.search.query.language import parse
from fovea.search.suggesting.languages import NAMES, hint_for, languages_in

ENGLISH = frozenset({"en"})

FOREIGN = {
    "de": "ein hund am strand/Sonnenuntergang am Meer/Mädchen mit Hund/Kinder spielen im Schnee/"
    "weisse Katze/Hochzeit/zwei Pferde auf der Wiese",
    "fr": "un chien sur la plage/coucher de soleil/des enfants dans la neige/une fleur jaune",
    "es": "perro en la playa/atardecer en el mar/una mujer con bicicleta/montañas/niños jugando",
    "it": "cane sulla spiaggia/tramonto sul mare/bambini che giocano/gatto nero",
    "pt": "cachorro na praia/crianças brincando/mulher com bicicleta/cachoeira",
    "zh": "海滩上的狗/日落/一只 猫/婚礼 2019/山 snow",
    "ja": "海の夕日/ねこ/ﾈｺ",
    "ko": "바다/해변의 강아지",
    "ru": "собака на пляже/снег",
    "uk": "діти",
    "ar": "كلب على الشاطئ",
    "fa": "گربه",
    "he": "כלב בים",
    "el": "σκύλος",
    "th": "หมา",
    "hi": "कुत्ता",
}

QUERIES = (
    """
a dog running on a beach/dog/cat/sunset/sunset over the sea/people at a party/my birthday cake
red car/a red car at night/children playing in snow/kids/mountains/wedding/wedding dress/beach
black and white portrait/portrait of a woman/food on a table/pasta/pizza margherita/cafe latte
espresso/croissant/sushi/ramen/tapas/paella/taco/burrito/sauerkraut/bratwurst/schnitzel/strudel
kindergarten/poodle/rottweiler/dachshund/papillon dog/chihuahua/siesta/patio/piano/cello/opera
pink flower/rose/tulip/orchid/cactus/sand dunes/river/lake/waterfall/hot air balloon/aurora
chat/pain/main street/court/sale/tour bus/gift/hell/see/rot/pan/come/once/son/sin/note/piccolo
mesa/pueblo/sierra/casino/bravo/solo/grande/latte/auto/torte/alter/die/was/an/man/hat/fast/also
film grain/screenshot/receipt/document/passport/whiteboard/qr code/map/mit campus/a la carte
déjà vu/café/naïve/jalapeño/crème brûlée/façade/résumé/piñata/smörgåsbord/vis a vis/bon appetit
""".replace("\n", "/")
    .strip("/")
    .split("/")
)

PLACES = (
    """
Berlin/München/Munich/Köln/Zürich/Wien/Hamburg/Freiburg im Breisgau/Frankfurt am Main/Paris/Lyon
Nice/Mont Saint Michel/Notre Dame/Côte d'Azur/Los Angeles/San Francisco/San Diego/Santa Monica
Las Vegas/El Paso/Puerto Rico/Costa Rica/Buenos Aires/Rio de Janeiro/São Paulo/Sagrada Familia
Casa Batlló/Playa del Carmen/La Paz/Ciudad Juárez/Montana/Sierra Nevada/Palma de Mallorca/Roma
Venezia/Ponte Vecchio/Lago di Como/Val d'Orcia/Lisboa/Porto/Monte Carlo/Baden Baden/Bad Ischl
Maria/Carlos/Müller/Vogel/Schwarzenegger/Angela Merkel/Nina/Luna/Rosa/Bruno/Bianca/Marco Polo
IMG_1234/DSC00012/iPhone 13/2019/canon eos 6d/Toyota Corolla/Mercedes Benz/Volkswagen Golf/Lego
π/α/☀️/❤️/🐶/🐶🏖️/中 dog on beach/a photo of 東京 tower/№ 5/µm
""".replace("\n", "/")
    .strip("/")
    .split("/")
)


@pytest.mark.parametrize("language", FOREIGN)
def test_what_is_surely_foreign_is_told(language):
    assert language in NAMES
    for text in FOREIGN[language].split("/"):
        found = languages_in(text)
        assert found and found[0] == language, (text, found)


@pytest.mark.parametrize("text", QUERIES + PLACES)
def test_english_words_and_names_are_not_foreign(text):
    assert languages_in(text) in ((), ("en",))


def test_labels_are_not_foreign():
    from importlib.resources import files

    labels = files("fovea.data").joinpath("labels.txt").read_text("utf-8").splitlines()
    assert len(labels) > 400
    assert [label for label in labels if set(languages_in(label)) - {"en"}] == []


def test_a_hint_says_what_to_do_in_one_line(library):
    hint = hint_for(library, parse("hund in:holidays"), "fovea-small", ENGLISH)
    assert hint.code == "language"
    assert "reads English" in hint.message and "German" in hint.message
    assert f"fovea models use {MANY}" in hint.message and "\n" not in hint.message
    assert hint.params == {
        "language": "de", "reads": "en", "model": "fovea-small", "suggested": MANY
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "dog", "in:海滩", "name:собака", "camera:相机 dog", "like:1", "is:square"]
)
def test_filters_in_any_language_give_no_hint(library, text):
    assert hint_for(library, parse(text), "m", ENGLISH) is None


@pytest.mark.parametrize(
    "text, reads, is_told",
    [
        ("海滩", frozenset({"zh"}), False),
        ("海滩", frozenset({"en", "ja"}), False),  # the same characters
        ("海滩", None, False),  # not known
        ("a dog on the beach", frozenset({"zh"}), True),
        ("dog -собака", ENGLISH, True),
        ("2:hund", ENGLISH, True),
        ("casa", frozenset({"it"}), False),
    ],
)
def test_only_what_the_model_does_not_read_is_told(library, text, reads, is_told):
    assert (hint_for(library, parse(text), "m", reads) is not None) == is_told


def test_names_of_the_library_are_found_in_any_language(odd_library: Library):
    assert hint_for(odd_library, parse("葡萄牙"), "m", ENGLISH) is None
    assert hint_for(odd_library, parse("海滩"), "m", ENGLISH) is None
    assert hint_for(odd_library, parse("山"), "m", ENGLISH) is not None


def test_the_bundled_models_read_english():
    for name in (BUNDLED, "fovea-small-1"):
        assert languages_of(resolve_model(name, None, network=False).folder) == ENGLISH


@pytest.mark.parametrize(
    "config, reads",
    [
        ({"model_type": "chinese_clip"}, {"zh"}),
        ({"model_type": "altclip"}, {"en", "zh", "es", "fr", "ru", "ar", "ja", "ko", "it"}),
        ({"model_type": "siglip"}, {"en"}),
        ({"model_type": "siglip", "text_config": {"vocab_size": 256_000}}, None),
        ({"model_type": "siglip2"}, None),
        ({"model_type": "metaclip_2"}, None),
        ({"model_type": "vision-text-dual-encoder"}, None),
        ({"model_type": "clip"}, None),  # its vocabulary is not there
        ({"model_type": "clip", "languages": ["de", "en"]}, {"de", "en"}),
        ({"languages": []}, None),
        ({"model_cfg": {"text_cfg": {"kind": "bert", "vocab_size": 21_128}}}, {"zh"}),
        ({"model_cfg": {"text_cfg": {"kind": "bert", "vocab_size": 1}}}, None),
        ([], None),
    ],
)
def test_a_model_says_which_languages_it_reads(tmp_path, config, reads):
    (tmp_path / "config.json").write_text(json.dumps(config))
    expected = None if reads is None else frozenset(reads)
    assert languages_of(tmp_path) == languages_of(tmp_path / "model.safetensors") == expected


def test_a_vocabulary_made_of_english_texts_is_known(tmp_path):
    english, korean = tmp_path / "english", tmp_path / "korean"
    for folder, merges in ((english, ["i n", "th e</w>", "in g</w>"]), (korean, ["ì Ŀ", "ë ĭ"])):
        folder.mkdir()
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    assert languages_of(english) == ENGLISH
    assert languages_of(korean) is None
    packed = tmp_path / "packed"
    packed.mkdir()
    merges = [["i", "n"], ["th", "e</w>"], ["in", "g</w>"]]
    (packed / "tokenizer.json").write_text(json.dumps({"model": {"merges": merges}}))
    assert languages_of(packed) == ENGLISH
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "tokenizer.json").write_text("{")
    assert languages_of(tmp_path / "damaged") is languages_of(None) is None
