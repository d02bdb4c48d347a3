"""The words of the `reviews` world, and what each adjective is worth.

Data only. Praise is more usual than complaint, as in real reviews, but both are spread along the whole list.
"""

from typing import Final


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _worths(text: str) -> dict[str, float]:
    return {word: float(worth) for word, worth in (item.split() for item in text.split(","))}


NOUNS: Final[dict[str, tuple[str, ...]]] = {
    "food": _words("pasta soup bread salad steak fish dessert coffee breakfast pizza curry sauce"),
    "room": _words("room bed bathroom shower pillow balcony suite carpet window desk mattress closet"),
    "staff": _words("waiter chef manager receptionist porter barista host cleaner server concierge bartender owner"),
    "place": _words("hotel lobby terrace pool garden bar restaurant patio lounge courtyard beach street"),
}
"""Topics by category: what a review can be about."""

PRONOUNS: Final = {"food": ("it", "this"), "room": ("it", "this"), "staff": ("he", "she"), "place": ("it", "this")}

GENERAL: Final = "general"
"""The category whose adjectives fit every topic."""

ADJECTIVES: Final[dict[str, dict[str, float]]] = {
    "food": _worths(
        "tasty 0.6, fresh 0.5, warm 0.3, delicious 0.9, salty -0.4, rich 0.4, bland -0.6, crisp 0.5, hearty 0.5, "
        "sweet 0.3, greasy -0.6, tender 0.7, creamy 0.4, dry -0.4, flavorful 0.8, stale -0.8, soggy -0.6, juicy 0.7, "
        "fragrant 0.7, burnt -0.8, succulent 0.9, zesty 0.5, rubbery -0.7, luscious 1, rancid -1"
    ),
    "room": _worths(
        "clean 0.6, comfortable 0.7, cozy 0.5, small -0.3, bright 0.4, spacious 0.7, soft 0.4, dark -0.4, tidy 0.5, "
        "airy 0.5, dusty -0.6, cramped -0.6, spotless 0.9, plush 0.7, worn -0.4, snug 0.4, dirty -0.9, restful 0.8, "
        "damp -0.7, immaculate 1, stuffy -0.5, polished 0.5, sumptuous 0.9, moldy -1, soundproof 0.6"
    ),
    "staff": _worths(
        "friendly 0.6, helpful 0.7, polite 0.5, kind 0.6, slow -0.5, attentive 0.8, quick 0.4, cheerful 0.5, "
        "rude -0.9, patient 0.6, careless -0.6, gracious 0.8, thoughtful 0.9, courteous 0.7, distant -0.4, "
        "knowledgeable 0.8, clumsy -0.4, obliging 0.6, tireless 0.9, bored -0.5, witty 0.5, curt -0.6, solicitous 0.7, "
        "surly -0.8, hostile -1"
    ),
    "place": _worths(
        "quiet 0.5, central 0.4, noisy -0.5, charming 0.8, lively 0.4, pretty 0.5, crowded -0.4, peaceful 0.7, "
        "stylish 0.5, scenic 0.8, leafy 0.4, shabby -0.7, elegant 0.8, cold -0.4, secluded 0.5, historic 0.5, "
        "picturesque 0.9, welcoming 0.7, gloomy -0.6, idyllic 1, smoky -0.5, seedy -0.9, breezy 0.4, grand 0.6, "
        "derelict -1"
    ),
    GENERAL: _worths(
        "good 0.5, nice 0.4, great 0.7, fine 0.2, pleasant 0.5, bad -0.7, excellent 0.9, lovely 0.7, decent 0.2, "
        "wonderful 0.8, average -0.1, poor -0.7, perfect 0.9, memorable 0.6, disappointing -0.8, impressive 0.7, "
        "awful -0.9, superb 0.9, ordinary -0.1, delightful 0.8, amazing 0.8, mediocre -0.5, splendid 0.8, terrible -1, "
        "brilliant 0.8, dull -0.5, fabulous 0.8, dreadful -1, marvelous 0.9, charmless -0.6, exquisite 1, "
        "forgettable -0.5, sublime 1, dismal -0.8, flawless 0.9, lackluster -0.5, stellar 0.8, abysmal -1"
    ),
}
"""Worth of each adjective by category, in gold units from -1 to 1. The most usual first: how often one is drawn falls
as a power of its rank, so the end of each list is rare."""

VERBS: Final = _words("was felt seemed looked stayed remained proved appeared")
ADVERBS: Final = _words(
    "very really quite so rather truly fairly always just still often simply somewhat almost mostly usually "
    "surprisingly certainly clearly generally oddly mainly deeply wholly entirely fully notably perfectly especially"
)
OPENERS: Final = _words("overall honestly again frankly today inside outside lately indeed")
"""Words that may stand before a subject."""
JOINERS: Final = ("and", "but", "yet")
"""Between two adjectives, or after a comma between two clauses."""
DETERMINER: Final = "the"
END, COMMA, COLON = ".", ",", ":"
PAD, END_OF_TEXT, UNKNOWN = "<pad>", "<eos>", "<unk>"
