"""Corrections of Gradio's own scripts, made while they are served.

Gradio lets no app change how a message is shown, or what a screen reader says of it. Each row is one place in a script
of the pinned version. Where a row does not fit, as with another version of Gradio, that script is served as it is, and
the log says so.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gradio
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

ASSETS = Path(gradio.__file__).parent / "templates" / "frontend" / "assets"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patch:
    """One place of a script. `old` must be found exactly once among the scripts whose names fit `files`."""

    files: str  # a glob pattern, because the names of scripts have a hash
    old: str
    new: str


# Names for a screen reader, by the keys of their translations.
NAMES = {
    "send": "Send",
    "stop": "Stop",
    "question": "Question",
    "answer": "Answer",
    "edit": "Your question",
    "copy_code": "Copy code",
    "new": "New conversation",
}
GRADIO = {  # names that are Gradio's own
    "edit": "Edit",
    "retry": "Retry",
    "undo": "Undo",
    "submit": "Submit",
    "cancel": "Cancel",
    "down": "Scroll down",
    "copy": "Copy message",
    "copied": "Copied message",
    "log": "chatbot conversation",
    "footer": "Built with Gradio",
    "navigation": "Gradio footer navigation",
    "number": "number input for {label}",
    "slider": "range slider for {label}",
}

PATCHES = (
    # Who knows the name of a session can read its stream, and so it cannot be guessed. It was a number of Math.random.
    Patch(
        "index-*.js",
        "session_hash=Math.random().toString(36).substring(2)",
        "session_hash=[...crypto.getRandomValues(new Uint8Array(16))].map(e=>(e+256).toString(16).slice(1)).join(``)",
    ),
    # Markdown takes the text that message_text.js has prepared. Without it, characters vanish:
    # https://github.com/gradio-app/gradio/issues/7198, https://github.com/gradio-app/gradio/issues/10450
    Patch(
        "markdown-code-*.js",
        "let n=[],r=e;m().forEach(",
        "let n=[],r=window.shownText?window.shownText(e):e;m().forEach(",
    ),
    # A text that is not Markdown is text, and not HTML.
    Patch(
        "markdown-code-*.js",
        "blocks:[{key:e,render:async()=>j(e,e)}]",
        "blocks:[{key:e,render:async()=>{let t=document.createDocumentFragment();t.append(e);return t}}]",
    ),
    # A block of code says its language (see page.css), and what is copied keeps its first indentation.
    Patch(
        "markdown-code-*.js",
        '`<div class="code_wrap">`+st+`<pre><code class="language-`+$(r)+`">`',
        '`<div class="code_wrap"><span class="language">`+$(r)+`</span>`+st+`<pre><code class="language-`+$(r)+`">`',
    ),
    Patch(
        "markdown-code-*.js",
        'st=`<button title="copy" class="copy_code_button">',
        f'st=`<button title="{NAMES["copy_code"]}" aria-label="{NAMES["copy_code"]}" class="copy_code_button">',
    ),
    Patch(
        "src-*.js",
        "n=t.parentElement.innerText.trim()",
        "n=t.parentElement.querySelector(`code`).textContent.trimEnd()",
    ),
    # A diagram is shown as the code that it is: drawn, it brings style sheets, links and pictures of its own.
    Patch("markdown-code-*.js", "tokenizer(e){let t=/^```mermaid", "tokenizer(e){return;let t=/^```mermaid"),
    # A box in a list is a sign. As an input it would look like one of the page's own.
    Patch("markdown-code-*.js", "let e=this.renderer.checkbox(!!r);", "let e=r?`☑`:`☐`;"),
    # To clear the chat loses nothing: the conversation stays in the list.
    Patch("Index-*.js", "i.i18n(`chatbot.clear`)", f'"{NAMES["new"]}"'),
    # What a visitor typed is shown as they typed it.
    Patch(
        "Index-*.js",
        "get message(){return t.message.content},get latex_delimiters(){return t.latex_delimiters},"
        "get sanitize_html(){return t.sanitize_html},get render_markdown(){return t.render_markdown}",
        "get message(){return t.message.content},get latex_delimiters(){return t.latex_delimiters},"
        'get sanitize_html(){return t.sanitize_html},get render_markdown(){return t.message.role!=="user"}',
    ),
    # Scripts and style sheets know a button by its English name, also where translate.js shows another one.
    Patch("src-*.js", "j(A,`aria-label`,r()),", "j(A,`aria-label`,r()),j(A,`data-name`,r()),"),
    Patch("src-*.js", 'aria-label="undo"', 'aria-hidden="true"'),  # the icon of a button that has a name
    # Buttons with nothing but an icon, and the box in which a question is edited, get a name.
    *(
        Patch(
            "Index-*.js",
            f'`<button data-testid="{name}-button"><!></button>`',
            f'`<button data-testid="{name}-button" aria-label="{NAMES[key]}"><!></button>`',
        )
        for name, key in (("submit", "send"), ("stop", "stop"))
    ),
    Patch(
        "Index-*.js",
        '<textarea class="edit-textarea svelte-1nr59td">',
        f'<textarea class="edit-textarea svelte-1nr59td" aria-label="{NAMES["edit"]}">',
    ),
    # A message is a group with a short name. Its name was its whole text, on an element that may have no name.
    Patch(
        "Index-*.js",
        "I(r,`aria-label`,e),i=j(r,1,`svelte-1nr59td`",
        f"I(r,`role`,`group`),I(r,`aria-label`,u()===`user`?`{NAMES['question']}`:`{NAMES['answer']}`),"
        "i=j(r,1,`svelte-1nr59td`",
    ),
    # Not every token is read aloud: keys.js says the finished answer once.
    Patch(
        "Index-*.js",
        'role="log" aria-label="chatbot conversation" aria-live="polite"',
        'role="log" aria-label="chatbot conversation" aria-live="off" tabindex="0"',
    ),
    # A list whose items are no list items, and a landmark inside of the conversation.
    Patch("Index-*.js", '<div class="examples svelte-1rn3hyj" role="list">', '<div class="examples svelte-1rn3hyj">'),
    Patch("Index-*.js", 'content svelte-1rn3hyj" role="complementary">', 'content svelte-1rn3hyj">'),
    # The list of a dropdown scrolls, so browsers would stop at it before the next control.
    Patch(
        "Index-*.js",
        'class="option-list svelte-1ou0lab" role="listbox">',
        'class="option-list svelte-1ou0lab" role="listbox" tabindex="-1">',
    ),
    # Buttons keep the English names by which page.css and keys.js know them, whatever the language of the browser is.
    Patch("runtime-*.js", "window.navigator.language||window.navigator.languages[0]", "`en`"),
    # The line that unfolds is a button: none is inside of it, it says whether it is unfolded, and Space works too.
    Patch("Index-*.js", '<span class="arrow svelte-18cn3o3">', '<span class="arrow svelte-18cn3o3" inert>'),
    Patch("Index-*.js", "I(k,`aria-busy`,C(y).content", "I(k,`aria-expanded`,C(b)),I(k,`aria-busy`,C(y).content"),
    Patch(
        "Index-*.js",
        "P(`keydown`,k,e=>e.key===`Enter`&&S())",
        "P(`keydown`,k,e=>(e.key===`Enter`||e.key===` `)&&(e.preventDefault(),S()))",
    ),
    # The `js` of an event may name a function of the page's own scripts, such as "settingsPanel.show". Gradio would
    # evaluate it as source, which the content security policy forbids.
    Patch(
        "Blocks-*.js",
        "function z(e){let t,n=!0,r=e.trim()",
        'function z(e){let o=e.split(".").reduce((t,n)=>t?.[n],window);if(o)return async(...t)=>o(...t);'
        "let t,n=!0,r=e.trim()",
    ),
    # Such a function reads the data of the event, for example which message was edited, from `window.eventData`.
    Patch(
        "Blocks-*.js",
        "this.functions.frontend&&(i=await this.functions.frontend(t))",
        "this.functions.frontend&&(window.eventData=n,i=await this.functions.frontend(t))",
    ),
    # The server sends the messages of the running answer alone, and turns.js puts them below those above it.
    Patch(
        "Blocks-*.js",
        "s.type===`data`&&await this.handle_data(r.outputs,s.data)",
        "s.type===`data`&&await this.handle_data(r.outputs,window.turns.received(s.data))",
    ),
    # What has not changed in a conversation is not made again for each token.
    Patch(
        "Index-*.js",
        "let i=e.content.map(n=>Ce(e,n,t,r));",
        "let i=window.turns.converted(e,r,()=>e.content.map(n=>Ce(e,n,t,r)));",
    ),
    Patch("Index-*.js", "if(!t){n.push([a]);continue}", "if(!t){n.push(window.turns.row(a));continue}"),
    Patch("Index-*.js", "latest:s.i===s.value.length-1", "latest:!1"),
    Patch(
        "Index-*.js",
        "let Q=n(()=>c()?De(",
        "let lastIndex=p(``);O(()=>{F(lastIndex,`${c()?.[c().length-1]?.index}`)});let Q=n(()=>c()?De(",
    ),
    Patch(
        "Index-*.js", "f=n(()=>C(Q).slice(0,r).filter(e=>e[0].role===`assistant`).length)", "f=n(()=>0)"
    ),  # of feedback
    Patch(
        "Index-*.js",
        "o=n(()=>G()&&Ee(C(t),c())),f=n(()=>se()&&Ee(C(t),c()))",
        "isLast=n(()=>C(t)[C(t).length-1].role===`assistant`&&`${C(t)[C(t).length-1].index}`===C(lastIndex)),"
        "o=n(()=>G()&&C(isLast)),f=n(()=>se()&&C(isLast))",
    ),
    # While an answer comes, its state is told once and not with each token.
    Patch(
        "Blocks-*.js",
        "stream_state:n}),this.update_loading_stati_state();else if(s.stage===`error`)",
        "stream_state:n}),t.data.told||(t.data.told=!0,this.update_loading_stati_state());else if(s.stage===`error`)",
    ),
    # To set `dir` anew, though to the same, makes the browser style a message again.
    Patch("Index-*.js", ",r.dir=r.dir},[()=>u()+`'s message: `", "},[()=>u()+`'s message: `"),
    # Typing into a dropdown replaces what is chosen, where it was appended ("Samplingwater"), and filters the list at
    # once, also by what is pasted or composed, where the list was one character behind.
    Patch(
        "Index-*.js",
        "se(`blur`,Q,we),se(`focus`,Q,Ce)",
        "se(`blur`,Q,we),se(`focus`,Q,e=>{Ce(e);setTimeout(()=>Q.select())}),se(`input`,Q,Te)",
    ),
)


def patched(patches: Sequence[Patch] = PATCHES, folder: Path = ASSETS) -> dict[str, bytes]:
    """The scripts with their corrections, by file name."""
    by_file: defaultdict[Path, list[Patch]] = defaultdict(list)
    texts: dict[Path, str] = {}
    for patch in patches:
        texts |= {file: file.read_text("utf-8") for file in folder.glob(patch.files) if file not in texts}
        found = [file for file in texts if file.match(patch.files) and patch.old in texts[file]]
        if len(found) == 1 and texts[found[0]].count(patch.old) == 1:
            by_file[found[0]].append(patch)
        else:
            _log.warning("This version of Gradio has no single place for a correction of %s.", patch.files)
    for file, fitting in by_file.items():
        for patch in fitting:
            texts[file] = texts[file].replace(patch.old, patch.new)
    return {file.name: texts[file].encode() for file in by_file}


class PatchedScripts:
    """ASGI middleware that serves the corrected scripts in place of Gradio's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._scripts: Mapping[str, bytes] = patched()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request or connection."""
        folder, _, name = scope.get("path", "").rpartition("/")
        if scope["type"] == "http" and folder.endswith("/assets") and name in self._scripts:
            response = Response(self._scripts[name], media_type="text/javascript")
            response.headers["cache-control"] = "public, max-age=3600"
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)
