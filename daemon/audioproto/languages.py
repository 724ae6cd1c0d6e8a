"""Languages by code and by English name: what a client may send, and what verbose_json reports. Data and look-up only.

Source: the LANGUAGES and TO_LANGUAGE_CODE tables of Whisper's tokenizer (openai/whisper, MIT).
"""

from __future__ import annotations

import re

_TABLE = (
    "en:english zh:chinese de:german es:spanish ru:russian ko:korean fr:french ja:japanese pt:portuguese "
    "tr:turkish pl:polish ca:catalan nl:dutch ar:arabic sv:swedish it:italian id:indonesian hi:hindi "
    "fi:finnish vi:vietnamese he:hebrew uk:ukrainian el:greek ms:malay cs:czech ro:romanian da:danish "
    "hu:hungarian ta:tamil no:norwegian th:thai ur:urdu hr:croatian bg:bulgarian lt:lithuanian la:latin "
    "mi:maori ml:malayalam cy:welsh sk:slovak te:telugu fa:persian lv:latvian bn:bengali sr:serbian "
    "az:azerbaijani sl:slovenian kn:kannada et:estonian mk:macedonian br:breton eu:basque is:icelandic "
    "hy:armenian ne:nepali mn:mongolian bs:bosnian kk:kazakh sq:albanian sw:swahili gl:galician mr:marathi "
    "pa:punjabi si:sinhala km:khmer sn:shona yo:yoruba so:somali af:afrikaans oc:occitan ka:georgian "
    "be:belarusian tg:tajik sd:sindhi gu:gujarati am:amharic yi:yiddish lo:lao uz:uzbek fo:faroese "
    "ht:haitian_creole ps:pashto tk:turkmen nn:nynorsk mt:maltese sa:sanskrit lb:luxembourgish my:myanmar "
    "bo:tibetan tl:tagalog mg:malagasy as:assamese tt:tatar haw:hawaiian ln:lingala ha:hausa ba:bashkir "
    "jw:javanese su:sundanese yue:cantonese"
)

NAMES = {code: name.replace("_", " ") for code, _, name in (pair.partition(":") for pair in _TABLE.split())}
"""Whisper's code (ISO 639-1 where there is one, but jw for Javanese) to English name in lower case."""

_CODES = {name: code for code, name in NAMES.items()} | {
    "burmese": "my",
    "castilian": "es",
    "flemish": "nl",
    "haitian": "ht",
    "letzeburgesch": "lb",
    "mandarin": "zh",
    "moldavian": "ro",
    "moldovan": "ro",
    "panjabi": "pa",
    "pushto": "ps",
    "sinhalese": "si",
    "valencian": "ca",
    "cmn": "zh",
    "fil": "tl",
    "iw": "he",
    "jv": "jw",
    "nb": "no",
}


def code_of(language: str) -> str:
    """The code for a code, a tag or an English name in any case: "en", "en-US", "zh_Hans", "English" -> "en", "zh".

    What is none of these comes back in lower case without its region, for the caller to refuse by the user's own word.
    """
    given = language.strip().lower()
    if given in _CODES:
        return _CODES[given]
    primary = re.split("[-_]", given)[0]
    return _CODES.get(primary, primary)
