"""The language of a query, where that is sure, and what to do if the model does not read it.

Scripts tell most languages apart. Of those in Latin letters, a few are told by their words: lists
of the most usual ones in queries for photographs. A query counts as German only if nearly all of
its words are in the German list and one of them is in no other language; names are in no list.
So most queries have no language, and get no hint: a false alarm is worse than none.
"""

import re
from collections.abc import Collection
from functools import cache

from fovea.search.library.facts.folded import words
from fovea.search.library.library import Library
from fovea.search.models.languages import MANY
from fovea.search.query.empty import LANGUAGE, Hint
from fovea.search.query.filename_search import named_images
from fovea.search.query.language import Query

__all__ = ["NAMES", "hint_for", "languages_in"]

NAMES = {
    "ar": "Arabic", "bn": "Bengali", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "fa": "Persian", "fr": "French", "he": "Hebrew", "hi": "Hindi",
    "it": "Italian", "ja": "Japanese", "ka": "Georgian", "ko": "Korean", "pt": "Portuguese",
    "ru": "Russian", "ta": "Tamil", "te": "Telugu", "th": "Thai", "uk": "Ukrainian", "ur": "Urdu",
    "zh": "Chinese",
}  # fmt: skip

# Scripts: characters, and the languages that are written in them, the likeliest first.
_SCRIPTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9d", ("ja",)),
    ("\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3", ("ko",)),
    ("\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff", ("zh", "ja")),
    ("іїєґІЇЄҐ", ("uk",)),
    ("\u0400-\u052f", ("ru", "uk", "bg", "sr", "mk", "be")),
    ("\u0590-\u05ff", ("he",)),
    ("پچژگ", ("fa", "ur")),
    ("\u0600-\u06ff\u0750-\u077f", ("ar", "fa", "ur")),
    ("\u0370-\u03ff\u1f00-\u1fff", ("el",)),
    ("\u0e00-\u0e7f", ("th",)),
    ("\u0900-\u097f", ("hi", "mr", "ne")),
    ("\u0980-\u09ff", ("bn",)),
    ("\u0b80-\u0bff", ("ta",)),
    ("\u0c00-\u0c7f", ("te",)),
    ("\u10a0-\u10ff", ("ka",)),
)
_LETTERS = tuple((re.compile(f"[{letters}]"), languages) for letters, languages in _SCRIPTS)
_LATIN = re.compile("[a-z]")
_WRITTEN_TOGETHER = ("zh", "ja", "ko")  # with Latin words, without a space; µm is no Greek
_ALPHABETS = ("uk", "ru", "el", "he", "fa", "ar")  # a single letter of these may be a symbol

# Words without accents, as names are compared; function words first, then what photographs show.
# A word that is also an English one, or a name, is no evidence by itself: it is after the bar.
_WORDS = {
    "de": """
        ein eine einen einem einer auf mit ohne und oder zwei drei vier funf viele mein meine unser
        unsere kleiner kleine kleines grosser grosse grosses alter altes roter rotes rote blauer
        blaues blaue gruner grunes grune gelbe gelber schwarzer schwarze schwarzes weisser weisse
        weisses beim nachts abends spielt spielen lauft laufen rennt sitzt sitzen steht schlaft
        schlafen isst trinkt fahrt hund hunde hundchen katze katzen katzchen vogel pferd pferde kuh
        kuhe schaf schafe ziege schwein huhn ente schmetterling biene fisch fische hase
        kaninchen baum baume blume blumen wald wiese berg berge gebirge see meer fluss wasserfall
        himmel wolken sonnenuntergang sonnenaufgang mond sterne schnee eis regen gewitter nebel
        haus hauser kirche schloss burg brucke strasse strassen stadt dorf garten turm bahnhof zug
        fahrrad flugzeug schiff boot auto autos mann frau kind kinder madchen maedchen junge jungen
        leute menschen freunde familie oma opa mutter vater bruder schwester hochzeit geburtstag
        weihnachten weihnachtsbaum urlaub ausflug wanderung kuchen torte brot kaffee essen tisch
        stuhl tasse kuche schlafzimmer lacht lachend schwimmt schwimmen spaziergang
        | am im in an der die das den dem bei vor hinter unter zu vom zum von aus strand ball rot
        blau grun gelb schwarz weiss winter sommer herbst park hand wasser sand tag nacht baby
        restaurant see alte alten eis boot junge kind burg turm
    """,
    "fr": """
        une des dans avec sans sous devant derriere chez entre deux trois quatre cinq beaucoup
        petit petite petits petites grand grande rouge bleu bleue vert verte jaune noir noire blanc
        blanche qui court joue jouent joue mange dort assis assise debout chien chiens chiot chat
        chats chaton oiseau oiseaux cheval chevaux vache vaches mouton moutons chevre cochon poule
        canard papillon abeille poisson poissons lapin arbre arbres fleur fleurs foret montagne
        montagnes lac mer riviere cascade ciel nuages coucher lever soleil lune etoiles neige pluie
        orage brouillard maison maisons eglise chateau pont rue ville jardin tour gare
        velo avion bateau bateaux voiture voitures homme femme enfant enfants fille garcon
        amis famille mamie papi frere soeur mariage anniversaire noel sapin vacances
        randonnee gateau pain cafe nourriture chaise tasse cuisine plage
        | le la les l un et ou sur au aux du de d a en au table mer tour court pain lever rose
        orange restaurant parc hiver ete automne nuit jour eau sable bebe ballon main photo
        grand noir blanc fille lac
    """,
    "es": """
        una unos unas con sin sobre bajo junto entre dos tres cuatro cinco muchos muchas pequeno
        pequena grande rojo roja azul verde amarillo amarilla negro negra blanco blanca que corre
        corriendo juega jugando comiendo come duerme durmiendo sentado sentada perro perros perrito
        gato gatos gatito pajaro pajaros caballo caballos vaca vacas oveja ovejas cabra cerdo
        gallina pato mariposa abeja pez peces conejo arbol arboles flor flores bosque montana
        montanas lago mar rio cascada cielo nubes atardecer amanecer puesta sol luna estrellas
        nieve hielo lluvia tormenta niebla casa casas iglesia castillo puente calle calles ciudad
        pueblo jardin torre estacion tren bicicleta avion barco coche coches hombre mujer nino nina
        ninos ninas chica chico gente amigos familia abuela abuelo madre padre hermano hermana boda
        cumpleanos navidad vacaciones excursion pastel tarta pan cafe comida mesa silla taza cocina
        playa
        | el la los las un y o en de del al a por para su mi mar sol rio grande negro azul luna
        torre pan blanco casa mesa flor flores castillo invierno verano otono noche dia agua arena
        bebe pelota mano parque restaurante foto
    """,
    "it": """
        uno una degli delle della dello nella nello sulla sulle con senza sotto sopra davanti dietro
        due tre quattro cinque molti molte piccolo piccola grande rosso rossa blu verde giallo
        gialla nero nera bianco bianca che corre gioca giocano mangia dorme seduto seduta cane cani
        cagnolino gatto gatti gattino uccello uccelli cavallo cavalli mucca mucche pecora pecore
        capra maiale gallina anatra farfalla ape pesce pesci coniglio albero alberi fiore fiori
        bosco foresta montagna montagne lago mare fiume cascata cielo nuvole tramonto alba sole luna
        stelle neve ghiaccio pioggia temporale nebbia casa case chiesa castello ponte strada strade
        citta paese giardino torre stazione treno bicicletta aereo barca auto uomo donna bambino
        bambina bambini ragazza ragazzo gente amici famiglia nonna nonno madre padre fratello
        sorella matrimonio compleanno natale vacanza vacanze gita torta pane caffe cibo tavolo sedia
        tazza cucina spiaggia
        | il lo la i gli le sul sui un e o di da del dei al alla in a su per nel mare grande nero
        luna torre casa case alba ape sole cane ponte lago blu inverno estate autunno notte giorno
        acqua sabbia palla mano parco ristorante foto
    """,
    "pt": """
        uma uns umas dos das pelo pela com sem sob embaixo junto entre dois duas tres quatro cinco
        muitos muitas pequeno pequena grande vermelho vermelha azul verde amarelo amarela preto
        preta branco branca que corre correndo brinca brincando comendo come dorme dormindo sentado
        sentada cachorro cachorros cao caes gato gatos gatinho passaro passaros cavalo cavalos vaca
        vacas ovelha ovelhas cabra porco galinha pato borboleta abelha peixe peixes coelho arvore
        arvores flor flores floresta montanha montanhas lago mar rio cachoeira ceu nuvens por sol
        lua estrelas neve gelo chuva tempestade neblina casa casas igreja castelo ponte rua ruas
        cidade aldeia jardim torre estacao trem comboio bicicleta aviao barco carro carros homem
        mulher menino menina criancas crianca meninas meninos pessoas amigos familia avo mae pai
        irmao irma casamento aniversario natal ferias passeio bolo pao cafe comida mesa cadeira
        xicara cozinha praia
        | o a os as um e ou em no na nos nas de do da ao por para seu meu mar sol rio grande preto
        azul luna torre casa mesa flor lua sob inverno verao outono noite dia agua areia bebe bola
        mao parque restaurante foto
    """,
    "en": """
        the of with without on under behind and two three four five many my our small little big old
        red blue green yellow black white running playing eating sleeping sitting standing swimming
        dog dogs puppy cat cats kitten bird birds horse horses cow cows sheep goat pig chicken duck
        butterfly bee fish rabbit tree trees flower flowers forest mountain mountains lake sea river
        waterfall sky clouds sunset sunrise moon stars snow ice rain storm fog house houses church
        castle bridge street streets city village garden tower station train bicycle bike plane
        ship boat car cars woman women child children girl boy people friends family grandmother
        grandfather mother father brother sister wedding birthday christmas holiday hiking cake
        bread coffee food table chair cup kitchen bedroom beach
        | a an in at by from to for over night day water sand winter summer autumn spring baby ball
        hand restaurant park photo man men
    """,
}  # fmt: skip
# Words of other languages that are also English ones, or names: no evidence by themselves.
_ALSO_ENGLISH = frozenset(
    """
    alter auto berg essen mann mein mit mutter vogel torte lachend
    blanche bleu bateau cafe canard cascade chaise chat chateau chats chevre cochon cuisine des deux
    femme fleur gare gateau grande homme maison mamie mouton noel papi papillon petit petite pont
    qui rouge rue sans sous velo vert ville
    amarillo azul blanca bosque chica chico come con dos excursion familia lago mariposa montana
    nina nino padre pastel pez pueblo que sin tarta tres una uno verde
    bambino barca bianca bianco blu bosco che della donna due giallo natale nero nonna nonno piccolo
    ponte rosso torta tre uomo caffe
    avo bolo cao com das flores irma lua mae natal pai
    """.split()
)
_ENOUGH = 2 / 3  # of the words, in the list of a language


def hint_for(
    library: Library, query: Query, model: str, reads: Collection[str] | None
) -> Hint | None:
    """Return a hint if words of a query are surely in no language that the model reads.

    ``reads`` are its languages, None if they are not known. Words that files or folders of the
    library are named with are found in any language, and get none.
    """
    if reads is None:
        return None
    for term in query.terms:
        if term.kind != "text":
            continue
        found = languages_in(str(term.value))
        is_read = any(language in reads for language in found)
        if found and not is_read and not named_images(library, str(term.value), 1):
            return _hint(found[0], model, sorted(reads))
    return None


def _hint(language: str, model: str, reads: Collection[str]) -> Hint:
    known = [NAMES.get(code, code) for code in reads]
    read = " and ".join(filter(None, [", ".join(known[:-1]), known[-1]]))
    name = NAMES[language]
    return Hint(
        LANGUAGE,
        f"{model} reads {read}, and this looks like {name}; use {read} words, or a model that "
        f"reads {name}: fovea models use {MANY}",
        {"language": language, "reads": " ".join(reads), "model": model, "suggested": MANY},
    )


def languages_in(text: str) -> tuple[str, ...]:
    """Return the languages that a text may be in, the likeliest first; empty where none is sure."""
    tokens = words(text)
    letters = [token for token in tokens if not token.isdigit()]
    if not letters:
        return ()
    scripts = [_script_of(token) for token in letters]
    told = [languages for languages in scripts if languages]
    if told:
        is_symbol = told[0][0] in _ALPHABETS and sum(map(len, letters)) < 2
        if 2 * len(told) < len(letters) or is_symbol:
            return ()
        return min(told, key=len)
    return _by_words(letters)


def _script_of(token: str) -> tuple[str, ...]:
    """Return the languages written in the script of a word; empty for Latin and unknown ones."""
    for letter, languages in _LETTERS:
        if letter.search(token) and (languages[0] in _WRITTEN_TOGETHER or not _LATIN.search(token)):
            return languages
    return ()


@cache
def _lists() -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """Return, by language, the words that are evidence, and all that are known."""
    found = {}
    for language, text in _WORDS.items():
        sure, _, unsure = text.partition("|")
        known = frozenset(text.replace("|", " ").split())
        evidence = frozenset(sure.split()) - set(unsure.split())
        found[language] = evidence - (_ALSO_ENGLISH if language != "en" else set()), known
    return found


def _by_words(tokens: list[str]) -> tuple[str, ...]:
    """Return the languages of which nearly all words are known, those with the most first."""
    scores = {}
    for language, (sure, known) in _lists().items():
        evidence, met = (sum(token in which for token in tokens) for which in (sure, known))
        if evidence and (met == len(tokens) or (evidence >= 2 and met >= _ENOUGH * len(tokens))):
            scores[language] = met + evidence
    best = max(scores.values(), default=0)
    return tuple(language for language, score in scores.items() if score == best)
