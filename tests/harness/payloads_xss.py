"""Texts that would act in a browser if a page showed one of them unescaped."""

import re
from html.parser import HTMLParser

#: Each carries MARK, so that a page that shows it can be told from one that does not.
MARK = "xssmark"
CORPUS = [
    text.replace("MARK", MARK)
    for text in (
        "<script>alert('MARK')</script>", "<SCRIPT SRC=//MARK.example/x.js></SCRIPT>", "<script\x0c>MARK()</script>",
        "<script/x>MARK()</script>", "<<script>MARK()//<</script>", "<scr<script>ipt>MARK()</scr</script>ipt>",
        "</script><script>MARK()</script>", "</title><script>MARK()</script>", "</textarea><script>MARK()</script>",
        "</style><script>MARK()</script>", "--><script>MARK()</script>", "]]><script>MARK()</script>",
        "<img src=x onerror=MARK()>", "<img src=x onerror='MARK()'>", "<img src=x:MARK onerror=alert`1`>",
        "<img/src=x/onerror=MARK()>", "<img src='x' onload=MARK() ", "<image src=x onerror=MARK()>",
        "\"><img src=x onerror=MARK()>", "'><img src=x onerror=MARK()>", "\" autofocus onfocus=MARK() x=\"",
        "' autofocus onfocus=MARK() x='", "x onmouseover=MARK() ", "\" onpointerenter=\"MARK()", "` onclick=MARK() `",
        "<svg onload=MARK()>", "<svg/onload=MARK()//", "<svg><script>MARK()</script></svg>",
        "<svg><animate onbegin=MARK() attributeName=x dur=1s>", "<svg><a xlink:href='javascript:MARK()'><text>x</text>",
        "<svg><foreignObject><body onload=MARK()>", "<math><mi xlink:href='data:x,MARK'>",
        "<math href=javascript:MARK()>x",
        "<iframe src=javascript:MARK()>", "<iframe srcdoc='<script>MARK()</script>'>", "<embed src=javascript:MARK()>",
        "<object data=javascript:MARK()>", "<base href=//MARK.example/>",
        "<link rel=stylesheet href=//MARK.example/x.css>",
        "<meta http-equiv=refresh content='0;url=//MARK.example'>", "<style>@import '//MARK.example';</style>",
        "<div style='background:url(//MARK.example)'>", "<form action=//MARK.example><input type=submit>",
        "<input autofocus onfocus=MARK()>", "<button formaction=javascript:MARK()>x", "<details open ontoggle=MARK()>",
        "<video src=x onerror=MARK()>", "<audio src=x onerror=MARK()>", "<video><source onerror=MARK()></video>",
        "<marquee onstart=MARK()>", "<body onload=MARK()>", "<a href='javascript:MARK()'>x</a>", "javascript:MARK()//",
        "java\tscript:MARK()", "data:text/html,<script>MARK()</script>", "vbscript:MARK()",
        "{{ MARK }}{{ 7*7 }}", "{% for x in MARK %}", "${MARK}", "#{MARK}", "<%= MARK %>",
        "&lt;script&gt;MARK()&lt;/script&gt;",
        "&#60;script&#62;MARK()&#60;/script&#62;", "\\u003cscript\\u003eMARK()", "%3Cscript%3EMARK()%3C/script%3E",
        "+ADw-script+AD4-MARK()+ADw-/script+AD4-", "\ufeff<script>MARK()</script>", "\u2028<script>MARK()</script>",
        "<template><script>MARK()</script></template>", "<noscript><p title='</noscript><img src=x onerror=MARK()>'>",
    )
]  # fmt: skip
#: Everything that the pages are made of; an element or attribute beside these came in with the data.
_ELEMENTS = frozenset(
    """
    html head meta title link script body a div header p img nav ul li span form input strong button details
    summary main section h1 h2 h3 h4 dl dt dd table thead tbody tfoot tr th td caption time code pre ol figure
    figcaption svg rect path desc circle line text g label select option optgroup textarea fieldset legend small
    em b i hr br ins del mark template progress meter article aside footer datalist output kbd q
    """.split()  # noqa: SIM905 - a list of words reads better
)
_DANGEROUS = re.compile(r"on[a-z]+|style|srcdoc|formaction|xlink:href|background|http-equiv")


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _ELEMENTS:
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            text = value or ""
            if _DANGEROUS.fullmatch(name):
                self.found.append(f"<{tag} {name}>")
            if name in ("href", "src", "action") and not re.match(r"/(?![/\\])|#|\?", text):
                self.found.append(f"<{tag} {name}={text[:60]!r}>")
            if tag == "script" and name == "src" and not text.startswith("/static/"):
                self.found.append(f"<script src={text[:60]!r}>")
        if tag == "script" and "src" not in dict(attrs):
            self.found.append("<script> without a file")
        if tag == "img" and not (dict(attrs).get("src") or "").startswith("/static/"):
            self.found.append("<img>")


def foreign_markup(page: str) -> list[str]:
    """Return what is in a page that no template of ours put there."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader.found
