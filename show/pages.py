"""Self-contained HTML pages (floor 0: standard library only). Nothing is loaded from anywhere; all text is escaped."""

import html
import json

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --ink: #22201c; --faint: #8b867c; --card: #fff; --line: #e4e0d6; --new: #d9480f; }
@media (prefers-color-scheme: dark) { :root { --paper: #17181b; --ink: #e6e3dc; --faint: #8d8a84; --card: #1f2125; --line: #33363c; --new: #ffa94d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 46rem; padding: 1.5rem 1rem 6rem; background: var(--paper); color: var(--ink);
       font: 1.05rem/1.7 Georgia, 'Times New Roman', serif; }
h1 { font-size: 1.4rem; margin: 0 0 .3rem; } .facts, .number, .bar { font: .8rem/1.5 system-ui, sans-serif; color: var(--faint); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem 1.2rem; margin: 1.2rem 0;
        white-space: pre-wrap; overflow-wrap: anywhere; }
.number { display: block; margin-bottom: .4rem; }
.hidden { color: var(--faint); opacity: .55; letter-spacing: .1em; } .given { font-weight: bold; } .fresh { color: var(--new); }
.bar { position: fixed; left: 0; right: 0; bottom: 0; background: var(--card); border-top: 1px solid var(--line); padding: .7rem 1rem; }
.bar div { max-width: 46rem; margin: 0 auto; display: flex; gap: .8rem; align-items: center; }
.bar input[type=range] { flex: 1; min-width: 3rem; accent-color: var(--new); } .bar button, .bar select { font: inherit; padding: .3rem .8rem; }
@media (max-width: 28rem) { .bar div { gap: .4rem; } .bar button, .bar select { padding: .3rem; } }
"""

SCRIPT = """
const data = JSON.parse(document.getElementById('data').textContent);
const cards = document.getElementById('cards'), slider = document.getElementById('step'), count = document.getElementById('count');
const play = document.getElementById('play'), speed = document.getElementById('speed'), colour = document.getElementById('colour');
const last = Math.max(...data.map(s => Math.max(0, ...s.step)));
slider.max = last; slider.value = last;
const spans = data.map((s, number) => {
  const card = document.createElement('div'); card.className = 'card';
  const title = document.createElement('span'); title.className = 'number';
  title.textContent = 'sample ' + (number + 1) + ' · ' + Math.max(0, ...s.step) + ' calls'; card.append(title);
  const mine = s.pieces.map((piece, i) => {
    const span = document.createElement('span');
    span.title = s.step[i] ? 'call ' + s.step[i] + ', probability ' + s.probability[i].toFixed(3) : 'given';
    card.append(span); return span; });
  cards.append(card); return mine; });
function draw() {
  const now = +slider.value; count.textContent = now + ' / ' + last;
  data.forEach((s, number) => s.pieces.forEach((piece, i) => {
    const span = spans[number][i], seen = s.step[i] <= now;
    span.textContent = seen ? piece : '·';
    span.className = !seen ? 'hidden' : s.step[i] === 0 ? 'given' : s.step[i] === now && now < last ? 'fresh' : '';
    span.style.backgroundColor = '';
    if (seen && s.step[i] && colour.value !== 'none') {
      const x = colour.value === 'order' ? s.step[i] / last : 1 - s.probability[i];
      span.style.backgroundColor = 'hsla(' + (200 - 180 * x) + ', 80%, 50%, .22)'; } })); }
let timer = null;
function stop() { clearInterval(timer); timer = null; play.textContent = 'Play'; }
function start() {
  if (+slider.value >= last) slider.value = 0;
  play.textContent = 'Pause';
  timer = setInterval(() => { slider.value = +slider.value + 1; draw(); if (+slider.value >= last) stop(); }, 1000 / +speed.value); }
play.onclick = () => timer ? stop() : start();
slider.oninput = () => { stop(); draw(); }; colour.onchange = draw;
speed.onchange = () => { if (timer) { stop(); start(); } };
document.onkeydown = event => {
  if (event.target.tagName === 'SELECT') return;
  if (event.key === ' ') { event.preventDefault(); play.onclick(); }
  if (event.key === 'ArrowRight' || event.key === 'ArrowLeft') {
    event.preventDefault(); stop(); slider.value = +slider.value + (event.key === 'ArrowRight' ? 1 : -1); draw(); } };
draw();
"""


def embed(value) -> str:
    """JSON that is safe inside a script element: no text in it can close the element or open a comment."""
    return (
        json.dumps(value, ensure_ascii=False)
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
    )


def unmasking(samples, tokenizer, facts: dict) -> str:
    """A page that plays how samples were unmasked.

    samples: objects with ids, step (0: given) and probability, lists of equal length. facts: shown under the title.
    Special tokens are left out of the texts. A token that was masked again (ReMDM) appears when it was last revealed.
    """
    shown = []
    for sample in samples:
        keep = [
            i
            for i, id in enumerate(sample.ids)
            if id not in (tokenizer.bos, tokenizer.eos, tokenizer.pad)
        ]
        shown.append(
            {
                "pieces": [tokenizer.piece(sample.ids[i]) for i in keep],
                "step": [sample.step[i] for i in keep],
                "probability": [round(sample.probability[i], 4) for i in keep],
            }
        )
    line = " · ".join(
        f"{html.escape(str(key))} {html.escape(str(value))}" for key, value in facts.items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Unmasking, step by step</title><style>{STYLE}</style></head><body>
<h1>Unmasking, step by step</h1><p class="facts">{line}</p><main id="cards"></main>
<div class="bar"><div><button id="play">Play</button><input type="range" id="step" min="0" aria-label="step"><span id="count"></span>
<select id="speed" aria-label="speed"><option value="4">slow</option><option value="12" selected>medium</option><option value="40">fast</option></select>
<select id="colour" aria-label="colour"><option value="none">plain</option><option value="order">order</option><option value="doubt">doubt</option></select></div></div>
<script type="application/json" id="data">{embed(shown)}</script><script>{SCRIPT}</script></body></html>
"""
