"""Words for normal and anomalous in several languages: what the name of a folder or label means."""

from __future__ import annotations

import functools
import re
import unicodedata

NORMAL, ANOMALOUS = 0, 1

# Words that decide by themselves, with the endings of ENDINGS
WORDS = {
    NORMAL: """
    normal normaal ok oks okay okey good goods pass passed passing fine clean healthy intact
    perfect acceptable accepted conforming conform conformant compliant correct nominal regular
    usual typical flawless faultless functional working pristine inlier approved fresh negative neg
    gut gute guter gutes guten io inordnung brauchbar heil intakt gesund korrekt einwandfrei
    bon bonne bons bonnes conforme sain saine sains
    bueno buena buenos buenas sano sana apto aprobado aceptado correcto
    buono buona buoni buone corretto integro idoneo
    bom boa bons boas saudavel aprovado correto
    goed goede gezond goedgekeurd
    dobry dobra dobre dobrze bra god saglam
    zhengchang hege liangpin lianghao hao seijou seijo seijouhin seijohin ryouhin ryohin goukaku
    gokaku
    正常 正常品 良品 良好 合格 合格品 好 良 정상 양품 합격 норма норм годен годный годные хороший
    хорошие
    """,
    ANOMALOUS: """
    bad def nok ng ngs nogood ko kos fail fails failed failing failure fault faulty flaw flawed rej
    scrap scrapped damage damages damaged broken sick ill infected infection tumor tumour cancer
    malignant lesion pneumonia positive pos outlier wrong error errors erroneous deformed rotten
    spoiled rust rusty rusted corroded corrosion unwell novelty
    nio kaputt krank falsch ausschuss mangel maengel schaden bruch riss risse rissig kratzer
    auffallig auffaellig
    mauvais mauvaise mauvaises rebut rebuts casse malade
    malo mala malos malas fallo falla roto rota enfermo
    rotto rotta guasto guasti malato scarto scarti
    ruim ruins mau maus doente
    kapot ziek
    zly zla zle wada wady blad bledy bledne brak braki chory chore dalig hatali bozuk kusurlu
    yichang buliang quexian cipin feipin guzhang huai ijou ijo furyou furyo furyouhin furyohin
    kekkan
    异常 異常 異常品 缺陷 欠陥 不良 不良品 不合格 不合格品 次品 废品 故障 坏 불량 불량품 이상 비정상
    결함 불합격 брак плохой плохие негоден негодные
    """,
}
# Beginnings of words, whatever follows
STEMS = {
    NORMAL: "prawidlow poprawn normaln zdrow sprawn unauffall unauffaell нормальн исправн годн",
    ANOMALOUS: """
    anomal abnorm defect defekt defeit defaut difett reject crack scratch contaminat malfunction
    diseas patholog deviat fehler schlecht mangelhaft schaed schadhaft beschaed beschad gebrochen
    abweich endommag fissur rechaz danad dannegg danific cattiv reprovad falha avaria quebrad
    slecht fout gebrek afgekeur beschadig afwijk wadliw uszkodz odrzut wybrak vadn felakt дефект
    аномал неисправн
    """,
}
# Kinds of defects: in a test they are labels, but elsewhere the words have other meanings, too
KINDS = """
    hole tear torn cut dent dented stain stained spot bubble blister bump bend bent poke squeeze
    squeezed fold folded thread glue oil liquid print imprint color colour rough chip chipped chips
    peel peeled wear worn burn burnt burned burr missing misplaced flip combined fracture fractured
    leak leaking dirt dirty dust fiber fibre gap knot pit pits pitting porosity inclusion patches
    crazing scale wrinkle open short spur mouse contamination swap logical structural
    """
ENDINGS = "s es e en er em et n a o i os as y ny na ne ni"
# Words that mean their opposites after one of these, as NOT in "not_ok"; also as a prefix
NEGATIONS = """
    non not no un nicht kein keine keinen ohne without sans sin senza sem zonder geen nie niet bez
    bu fei wu fu не
    """
PREFIXES = "in im ir an a ab"  # and the negations
FREE = "free frei freie los less"  # behind a word, as in "defect_free", "fehlerfrei"
# What says nothing of the images
NEUTRAL = """
    image images img imgs pic pics picture pictures photo photos photograph photographs frame frames
    sample samples data dataset set sets dir folder class cls label cat category group part parts
    piece pieces item items product products unit units case cases scan scans patient patients only
    all the and is bild bilder teil teile stuck ordner imagenes immagini imagens foto fotos zdjecia
    tu test tests testing train training val validation type raw crop crops
    """
# Of many meanings: only where nothing but neutral words stands beside; so are short ones
ALONE = """
    positive pos negative neg clean fine ill correct regular typical usual functional working fresh
    novelty mala casse error errors rota apto heil
    """
LONG_ENOUGH = "ok nok nio bad def ng"  # not alone, though of three letters at most
NOT_MEANT = "goods normala"


def tokens(name: str, camel: bool = True) -> list[str]:
    """The words of a name, in lower case and without accents: split at digits, marks, capitals."""
    if camel:
        name = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    plain = unicodedata.normalize("NFKD", name.casefold().replace("ł", "l").replace("ø", "o"))
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return re.findall(r"[^\W\d_]+", plain)


# The words above, in the form of `tokens`
MEANINGS, OF_STEMS = (
    {"".join(tokens(word)): sense for sense, text in lists.items() for word in text.split()}
    for lists in (WORDS, STEMS)
)
(KNOWN_KINDS, NEGATING, WITHOUT, NEUTRAL_WORDS, ALONE_WORDS, LONG_WORDS, UNMEANT) = (
    frozenset(tokens(text))
    for text in (KINDS, NEGATIONS, FREE, NEUTRAL, ALONE, LONG_ENOUGH, NOT_MEANT)
)
ALL_PREFIXES, ALL_ENDINGS = (*tokens(NEGATIONS), *tokens(PREFIXES)), ("", *tokens(ENDINGS))


def meaning(name: str) -> int | None:
    """NORMAL or ANOMALOUS, as the words of a name say; None where they say neither or both."""
    for words in (tokens(name), tokens(name, camel=False)):
        telling = [word for word in words if word not in NEUTRAL_WORDS]
        joined = _of_word("".join(telling), alone=True)
        if joined is not None:
            return joined
        meanings = _of_words(telling)
        if len(meanings) == 1:
            return meanings.pop()
    return None


def is_kind_of_defect(name: str) -> bool:
    """Whether a name says what is wrong with a part, as "hole" or "bent_wire"."""
    return meaning(name) == ANOMALOUS or bool(set(tokens(name)) & KNOWN_KINDS)


def is_negation(word: str) -> bool:
    return word in NEGATING


def _of_words(words: list[str]) -> set[int]:
    """What several words mean, each by itself or with a negation before or behind it."""
    meanings = set()
    for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
        sense = None if is_negation(word) else _of_word(word, alone=len(words) == 1)
        if sense is not None:
            negated = is_negation(before) or after in WITHOUT
            meanings.add(1 - sense if negated else sense)
    return meanings


@functools.lru_cache(4096)
def _of_word(word: str, alone: bool) -> int | None:
    """What one word means, with the endings, prefixes and nouns that are part of it."""
    for end in WITHOUT:
        if word.endswith(end) and _plainly(word.removesuffix(end), alone=True) == ANOMALOUS:
            return NORMAL
    for noun in ("", *filter(word.endswith, NEUTRAL_WORDS)):
        sense = _plainly(word.removesuffix(noun), alone)
        if sense is not None:
            return sense
    for prefix in filter(word.startswith, ALL_PREFIXES):
        sense = _plainly(word.removeprefix(prefix), alone=True)
        if sense is not None:
            return 1 - sense
    return None


def _plainly(word: str, alone: bool) -> int | None:
    """What a word of the lists means, with an ending or none."""
    if word in UNMEANT:
        return None
    for ending in ALL_ENDINGS:
        root = word.removesuffix(ending)
        whole = not ending or (root != word and len(root) >= 4)
        if whole and root in MEANINGS and (alone or _is_telling(root)):
            return MEANINGS[root]
    return next((sense for stem, sense in OF_STEMS.items() if word.startswith(stem)), None)


def _is_telling(word: str) -> bool:
    """Whether a word means the same whatever stands beside it."""
    short = len(word) <= 3 and word.isascii() and word not in LONG_WORDS
    return not (short or word in ALONE_WORDS)
