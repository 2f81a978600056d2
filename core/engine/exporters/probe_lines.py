"""Lines of many kinds, chosen to show any difference between tokenizers."""

import random
from collections.abc import Callable

_WORDS = (
    *("the", "quick", "brown", "Fox", "jumps", "SQLite", "HTTP2", "requests;", "don't", "we'll", "I've", "they're"),
    *("YOU'RE", "She'd", "O'Neil", "café", "naïve", "Ångström", "Übermut", "señor", "façade", "coöperate", "straße"),
    *("žluťoučký", "kůň", "ŁÓDŹ", "Ελληνικά", "ΣΊΣΥΦΟΣ", "Привет", "МИР", "שלום", "عربي", "हिन्दी", "ไทย", "한국어"),
    *("日本語", "中文测试", "ひらがな", "カタカナ", "e\u0301te\u0301", "ﬁne", "ǅungla", "İstanbul"),
)
_DIGITS = (
    "7",
    "42",
    "007",
    "1234",
    "3.14159",
    "1,234,567",
    "0x1F",
    "2024-11-27",
    "10e-5",
    "v2.0.1",
    "½",
    "x²",
    "٣٤٥",
    "Ⅷ",
)
_EMOJI = ("😀", "👩‍👩‍👧", "🇨🇿", "👍🏽", "❤️", "🏴‍☠️", "🤷", "✈")
_SIGNS = (
    "!?",
    "...",
    "—",
    "«»",
    "“”",
    "$$",
    "€5",
    "a+b=c",
    "#tag",
    "@me",
    "~/.x",
    "C:\\dir",
    "<|x|>",
    "[INST]",
    "%%",
    "_a_",
    "^",
    "`",
)
_BLANKS = (" ", "  ", "   ", "\t", " \t ", "\u00a0", "\u3000", "\u2009", "    ")
_BREAKS = ("\n", "\n\n", "\r\n", " \n", "\n ", "\n\n\n", "\r", "\u2028", "\x0b")
_CONTROLS = ("\x01", "\x07", "\x1b[0m", "\x7f", "\u200b", "\u200d", "\ufeff", "\u202e", "\u0085", "\ufffd")
_CODE = (
    "def f(x):\n    return x**2 + 1  # square",
    "for (int i=0;i<10;i++){a[i]=b[i]*c;}",
    "SELECT * FROM t WHERE id IN (1,22,333) ORDER BY n DESC;",
    '{"key": [1, 2.50, null], "s": "a\\nb"}',
    "if (!p || p->next == NULL) { goto err; }\n\n\t// end",
    '<div class="a-b"><p>10&nbsp;000</p></div>',
    "let mut v: Vec<u8> = vec![0u8; 1024];",
    "https://example.org/a/b?c=1&d=%20x#frag",
    "x = {'a': 1};  y='''it's'''\r\n",
    "\\begin{equation} \\alpha_{12}^{34} \\end{equation}",
)


def varied_lines(count: int, seed: int = 0) -> list[str]:
    """Return lines of digits, code, accents, CJK, emoji, spaces and control characters, alone and mixed."""
    generator = random.Random(seed)
    kinds: tuple[Callable[[], str], ...] = (
        lambda: generator.choice(_WORDS),
        lambda: generator.choice(_DIGITS),
        lambda: str(generator.randrange(10 ** generator.randrange(1, 9))),
        lambda: generator.choice(_EMOJI),
        lambda: generator.choice(_SIGNS),
        lambda: generator.choice(_CONTROLS),
        lambda: generator.choice(_CODE),
    )
    weights = (8, 2, 2, 1, 3, 1, 1)
    lines = ["", *_WORDS, *_DIGITS, *_EMOJI, *_SIGNS, *_BLANKS, *_BREAKS, *_CONTROLS, *_CODE]
    while len(lines) < count:
        pieces = []
        for _ in range(generator.randrange(1, 12)):
            pieces.append(generator.choices(kinds, weights)[0]())
            pieces.append(
                generator.choices(("", " ", generator.choice(_BLANKS), generator.choice(_BREAKS)), (2, 6, 1, 1))[0]
            )
        lines.append("".join(pieces))
    return lines[:count]
