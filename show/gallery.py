"""A self-contained page of captioned pictures (floor 0: standard library only), the sibling of pages.py.

The captions are plain HTML and can be read without the script, which only plays them. All text is escaped,
and the page's own policy forbids it to load anything.
"""

import html
import re
import unicodedata

from base.files import UserError
from show.pages import STYLE

LOOK = """
:root { --good: #2b8a3e; --bad: #c92a2a; }
@media (prefers-color-scheme: dark) { :root { --good: #69db7c; --bad: #ff8787; } }
html { scroll-padding-bottom: 5rem; } body { max-width: 84rem; padding: 1.5rem 1.5rem 6rem; } .bar div { max-width: 46rem; }
h1 { overflow-wrap: anywhere; } .facts { margin: 0 0 1rem; overflow-wrap: anywhere; } #count { font-variant-numeric: tabular-nums; white-space: nowrap; }
:focus-visible { outline: 2px solid var(--new); outline-offset: 2px; }
.table { overflow-x: auto; margin: 0 0 1.2rem; max-width: max-content; border: 1px solid var(--line); border-radius: .6rem; background: var(--card); }
table { border-collapse: collapse; font: .85rem/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
td, th { padding: .35rem .9rem; text-align: left; white-space: nowrap; } tbody td { border-top: 1px solid var(--line); }
th { font-weight: normal; color: var(--faint); } .figure { text-align: right; }
td:first-child, th:first-child { position: sticky; left: 0; background: var(--card); }
.filters { display: flex; flex-wrap: wrap; gap: .4rem; margin: 0 0 1rem; }
.filters button { font: .8rem/1.5 system-ui, sans-serif; padding: .25rem .8rem; border: 1px solid var(--line); border-radius: 1rem; background: var(--card);
                  color: var(--ink); cursor: pointer; max-width: 100%; overflow-wrap: anywhere; }
.filters button[aria-pressed=true] { border-color: var(--new); color: var(--new); } .filters small { color: var(--faint); font-size: 1em; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1rem; }
.card { margin: 0; padding: 0; white-space: normal; overflow: hidden; cursor: pointer; display: flex; flex-direction: column; min-width: 0; content-visibility: auto; contain-intrinsic-size: auto 27rem; }
.card[hidden] { display: none; } .card.playing { border-color: var(--new); box-shadow: 0 0 0 1px var(--new); }
.card img { display: block; width: 100%; height: auto; background: var(--line); }
.text { padding: .7rem .9rem .8rem; display: flex; flex-direction: column; gap: .3rem; flex: 1; }
.head { display: flex; justify-content: space-between; gap: .6rem; } .number { margin: 0; }
.badge { font: 600 .8rem/1.5 system-ui, sans-serif; white-space: nowrap; } .good { color: var(--good); } .bad { color: var(--bad); }
.caption { margin: 0; line-height: 1.5; white-space: pre-wrap; cursor: text; align-self: start; max-width: 100%; }
.caption[dir=rtl] { align-self: end; } .caption span { position: relative; border-radius: .2em; }
.hidden { visibility: hidden; opacity: 1; letter-spacing: 0; }
.hidden:not(:empty)::after { content: '·'; visibility: visible; position: absolute; left: 0; right: 0; text-align: center; color: var(--faint); font-weight: bold; }
.notes { margin: 0; font: .8rem/1.5 system-ui, sans-serif; color: var(--bad); } .meta { margin: auto 0 0; }
details { font: .8rem/1.5 system-ui, sans-serif; cursor: auto; } summary { color: var(--faint); cursor: pointer; }
details ul, details dl { margin: .2rem 0 .3rem; padding: 0; } details li { list-style: none; margin: .2rem 0; } dt { color: var(--faint); } dd { margin: 0 0 .3rem; }
@media (max-width: 28rem) { body { padding: 1rem 1rem 6rem; } td, th { padding: .35rem .6rem; } }
"""

SCRIPT = """
const $ = id => document.getElementById(id), all = query => [...document.querySelectorAll(query)];
const slider = $('step'), count = $('count'), play = $('play'), speed = $('speed'), colour = $('colour');
const cards = all('article').map(card => {
  const pieces = [...card.querySelectorAll('[data-step]')].map(span => {
    const step = +span.dataset.step, probability = +span.dataset.p;
    span.title = step ? 'call ' + step + ', probability ' + probability.toFixed(3) : 'given';
    return { span, step, probability }; });
  return { card, pieces, calls: Math.max(0, ...pieces.map(piece => piece.step)) }; });
let one = null, timer = null;  // the bar drives one card, or all that the filter shows
const shown = () => cards.filter(c => !c.card.hidden);
function draw() {
  const last = +slider.max; count.textContent = slider.value + ' / ' + last;
  for (const c of shown()) for (const { span, step, probability } of c.pieces) {
    const now = one && one !== c ? Infinity : +slider.value;
    const look = step > now ? 'hidden' : step === 0 ? 'given' : step === now && now < last ? 'fresh' : '';
    if (span.className !== look) span.className = look;
    const x = colour.value === 'order' ? step / c.calls : 1 - probability;
    const paint = step > now || !step || colour.value === 'none' ? '' : 'hsla(' + (200 - 180 * x) + ', 80%, 50%, .22)';
    if (span.dataset.paint !== paint) span.style.backgroundColor = span.dataset.paint = paint; } }
function stop() { clearInterval(timer); timer = null; play.textContent = 'Play'; }
function drive(chosen) {  // everything at rest and complete; then the bar drives `chosen`
  stop(); one = chosen; cards.forEach(c => c.card.classList.toggle('playing', c === one));
  slider.max = Math.max(0, ...(one ? [one] : shown()).map(c => c.calls)); slider.value = slider.max; draw(); }
function tick() {
  slider.value = +slider.value + 1; draw();
  if (+slider.value >= +slider.max) one ? drive(null) : stop(); }
function start() {
  if (+slider.value >= +slider.max) slider.value = 0;
  draw(); play.textContent = 'Pause'; timer = setInterval(tick, 1000 / +speed.value); }
play.onclick = () => timer ? stop() : start();
slider.oninput = () => { stop(); draw(); }; colour.onchange = draw;
speed.onchange = () => { if (timer) { stop(); start(); } };
function choose(c) { if (one === c) play.onclick(); else { drive(c); start(); } }
cards.forEach(c => {
  c.card.onclick = event => { if (!event.target.closest(getSelection().isCollapsed ? 'details' : 'details, .caption')) choose(c); };
  c.card.onkeydown = event => { if (event.key === 'Enter' && event.target === c.card) choose(c); }; });
all('.filters button').forEach((button, _, buttons) => button.onclick = () => {
  buttons.forEach(other => other.setAttribute('aria-pressed', other === button));
  cards.forEach(({ card }) => card.hidden = button.dataset.key && card.dataset[button.dataset.key] !== button.dataset.value);
  drive(null); });
document.onkeydown = event => {
  if (event.target.tagName === 'SELECT' || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === ' ' && !['BUTTON', 'SUMMARY'].includes(event.target.tagName)) { event.preventDefault(); play.onclick(); }
  if (event.key === 'Escape') drive(null);
  if ((event.key === 'ArrowRight' || event.key === 'ArrowLeft') && !event.target.closest('.table')) {
    event.preventDefault(); stop(); slider.value = +slider.value + (event.key === 'ArrowRight' ? 1 : -1); draw(); } };
drive(null);
if (!matchMedia('(prefers-reduced-motion: reduce)').matches) start();
"""


def text(value) -> str:
    return html.escape(str(value))


def direction(caption: str) -> str:
    """'rtl' if the first letter is Arabic, Hebrew and so on. Not left to the browser: the dots would change it."""
    kinds = (unicodedata.bidirectional(letter) for letter in caption)
    return (
        "ltr" if next((kind for kind in kinds if kind in ("L", "R", "AL")), "L") == "L" else "rtl"
    )


def played(item: dict) -> str:
    """The caption's pieces as spans; the space before a word stays outside, so that lines break between spans."""
    parts = []
    for piece, step, probability in zip(
        item["pieces"], item["step"], item["probability"], strict=True
    ):
        word = piece.lstrip()
        space = piece[: len(piece) - len(word)] if parts else ""
        parts.append(
            f'{text(space)}<span data-step="{int(step)}" data-p="{probability:.4f}">{text(word)}</span>'
        )
    return "".join(parts) or text(item["caption"])


def card(item: dict) -> str:
    """One picture with its caption, badge, bound, references and the captions of other models."""
    if not item["image"].startswith("data:image/"):
        raise UserError(
            f"the picture {item['image'][:40]!r} of {item['name']}",
            "a data:image/ address: the page loads nothing",
            "embed the picture",
        )
    verdict, references, others = (
        item.get("verdict"),
        item.get("references") or [],
        item.get("others") or [],
    )
    word = verdict and ("true" if verdict["truthful"] else "false")
    badge = {
        None: "",
        "true": '<span class="badge good">✓ true</span>',
        "false": '<span class="badge bad">✗ false</span>',
    }[word]
    notes = "".join(
        f'<p class="notes" dir="auto">{text(note)}</p>' for note in (verdict or {}).get("notes", [])
    )
    calls = max(item["step"], default=0)
    meta = [
        f"{calls} call{'s' * (calls != 1)}",
        "" if item.get("score") is None else f"bound {-item['score']:.2f} nats/token",
        "exact" if verdict and verdict.get("exact") else "",
    ]
    told = "".join(f'<li dir="auto">{text(reference)}</li>' for reference in references)
    folded = (
        f"<details><summary>references ({len(references)})</summary><ul>{told}</ul></details>"
        if references
        else ""
    )
    told = "".join(
        f'<dt dir="auto">{text(model)}</dt><dd dir="auto">{text(caption)}</dd>'
        for model, caption in others
    )
    folded += (
        f"<details><summary>other models ({len(others)})</summary><dl>{told}</dl></details>"
        if others
        else ""
    )
    label = f"{item['name']}: {item['caption']}{f' ({word})' if word else ''}. Enter plays it."
    return f"""<article class="card" tabindex="0" aria-label="{text(label)}" data-verdict="{word or ""}" data-group="{text(item.get("group", ""))}">
<img src="{text(item["image"])}" alt="{text(item["name"])}" width="224" height="224" loading="lazy" decoding="async">
<div class="text"><div class="head"><span class="number">{text(item["name"])}</span>{badge}</div>
<p class="caption" dir="{direction(item["caption"])}">{played(item)}</p>{notes}<p class="meta number">{" · ".join(filter(None, meta))}</p>{folded}</div></article>
"""


def filters(items: list[dict]) -> str:
    """Buttons with counts, if there is a choice: all, true and false, each group."""
    verdicts = [bool(item["verdict"]["truthful"]) for item in items if item.get("verdict")]
    groups = [str(item.get("group", "")) for item in items]
    rows = [("", "", "all", len(items))]
    rows += [
        ("verdict", word, word, verdicts.count(word == "true"))
        for word in ("true", "false")
        if verdicts
    ]
    rows += [
        ("group", group, group or "no group", groups.count(group))
        for group in dict.fromkeys(groups)
        if len(set(groups)) > 1
    ]
    buttons = "".join(
        f'<button data-key="{key}" data-value="{text(value)}" aria-pressed="{"false" if key else "true"}">{text(label)} <small>{count}</small></button>'
        for key, value, label, count in rows
    )
    return (
        f'<div class="filters" role="group" aria-label="show">{buttons}</div>'
        if len(rows) > 1
        else ""
    )


def tabular(rows: list[list[str]]) -> str:
    """A table whose first row is the header; columns of figures are set to the right."""
    figures = [
        all(re.match(r"[-+−–±≤≥<>~≈]?\s*\d|—?$", str(cell).strip()) for cell in column)
        for column in zip(*rows[1:], strict=True)
    ]
    figures = figures or [False] * len(rows[0])
    head, *body = [
        "<tr>"
        + "".join(
            f"<{tag}{' class=figure' * right}>{text(cell)}</{tag}>"
            for cell, right in zip(row, figures, strict=True)
        )
        + "</tr>"
        for tag, row in zip(["th"] + ["td"] * len(rows), rows, strict=False)
    ]
    return f'<div class="table" tabindex="0" role="region" aria-label="results"><table><thead>{head}</thead><tbody>{"".join(body)}</tbody></table></div>'


def page(
    items: list[dict],
    facts: dict,
    table: list[list[str]] | None = None,
    title: str = "Captions, step by step",
) -> str:
    """A page that shows captioned pictures and plays how the captions were unmasked.

    An item holds image (a data URI), name, caption; pieces, step (0: given) and probability, of equal length; and may
    hold score (mean log-probability), references, verdict {truthful, exact, notes}, others [[model, caption]], group.
    """
    line = " · ".join(f"{text(key)}&nbsp;{text(value)}" for key, value in facts.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{text(title)}</title><style>{STYLE}{LOOK}</style></head><body>
<header><h1>{text(title)}</h1><p class="facts">{line}</p>{tabular(table) if table else ""}{filters(items)}</header>
<main id="cards">{"".join(map(card, items))}</main>
<div class="bar"><div><button id="play">Play</button><input type="range" id="step" min="0" aria-label="step"><span id="count"></span>
<select id="speed" aria-label="speed"><option value="2">slow</option><option value="6" selected>medium</option><option value="20">fast</option></select>
<select id="colour" aria-label="colour"><option value="none">plain</option><option value="order">order</option><option value="doubt">doubt</option></select></div></div>
<script>{SCRIPT}</script></body></html>
"""
