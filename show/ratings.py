"""People rate captions: a page to rate them on, blind, and what the saved ratings say (floor 0).

The page is one file that loads nothing. It shows a picture and one caption at a time, in seeded random order; the keys
1 to 5 rate, the progress stays in the browser, and a button saves

    {"format": 1, "kind": "caption ratings", "page": …, "rater": …, "ratings": [{"image", "caption", "sources", "rating"}]}

Which source wrote a caption is in the page's data, encoded so that nobody reads it in passing.
"""

import base64
import json
import re
from pathlib import Path

import numpy as np

from base import files, images, metrics
from base.files import UserError
from show.gallery import text
from show.pages import STYLE, embed

SCALE = ("not at all", "poorly", "partly", "mostly", "perfectly")
HUMAN, SHUFFLED = "human", "shuffled"

LOOK = """
html, body { height: 100%; } body { max-width: none; padding: 0; display: flex; flex-direction: column; min-height: 100svh; overflow: hidden; }
.top { display: flex; align-items: center; gap: .8rem; padding: .7rem 1.2rem; font: .85rem/1.5 system-ui, sans-serif; color: var(--faint); }
.top h1 { font: 600 .95rem/1.5 system-ui, sans-serif; margin: 0; color: var(--ink); white-space: nowrap; } .top .gap { flex: 1; }
#count { font-variant-numeric: tabular-nums; white-space: nowrap; }
input, button { font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
input { width: 9rem; padding: .3rem .7rem; } .top button { padding: .3rem .9rem; cursor: pointer; white-space: nowrap; }
:focus-visible { outline: 2px solid var(--new); outline-offset: 2px; }
.track { height: 3px; background: var(--line); } #done { height: 100%; width: 0; background: var(--new); transition: width .2s; }
main { flex: 1; min-height: 0; display: flex; flex-direction: column; align-items: center; justify-content: center; gap: 1.1rem; padding: 1.2rem; }
.photo { flex: 1 1 0; min-height: 6rem; max-height: 34rem; width: 100%; display: flex; align-items: flex-end; justify-content: center; }
.photo img { max-width: min(100%, 44rem); max-height: 100%; height: 100%; object-fit: contain; object-position: bottom; border-radius: .6rem; }
#caption { margin: 0; min-height: 4.2rem; max-width: 36rem; font-size: 1.4rem; line-height: 1.5; text-align: center; overflow-wrap: anywhere; text-wrap: balance;
           display: flex; align-items: safe center; max-height: 30vh; overflow-y: auto; }
#caption:empty::before { content: '(an empty caption)'; color: var(--faint); font-style: italic; }
.ask { margin: 0; font: .85rem/1.5 system-ui, sans-serif; color: var(--faint); text-align: center; }
.scale { display: grid; grid-template-columns: repeat(5, 1fr); gap: .5rem; width: min(100%, 38rem); }
.scale button { padding: .6rem .2rem .5rem; border-radius: .6rem; cursor: pointer; font: .8rem/1.4 system-ui, sans-serif; color: var(--faint); min-width: 0; }
.scale b { display: block; font: 600 1.15rem/1.3 system-ui, sans-serif; color: var(--ink); }
.scale button:hover { border-color: var(--faint); } .scale button[aria-pressed=true] { border-color: var(--new); color: var(--new); box-shadow: 0 0 0 1px var(--new); }
.scale button[aria-pressed=true] b { color: var(--new); }
.keys { display: flex; flex-wrap: wrap; justify-content: center; gap: .3rem 1.1rem; font: .8rem/1.5 system-ui, sans-serif; color: var(--faint); margin: 0; }
.keys button { border: 0; background: none; padding: .3rem; color: inherit; cursor: pointer; } .keys button:disabled { opacity: .4; cursor: default; }
kbd { font: inherit; padding: 0 .4em; border: 1px solid var(--line); border-radius: .3em; background: var(--card); }
#end { max-width: 30rem; text-align: center; } #end h2 { font-size: 1.5rem; margin: 0 0 .4rem; } #end p { margin: 0 0 1.4rem; color: var(--faint); }
#end button { padding: .6rem 1.4rem; cursor: pointer; border-color: var(--new); color: var(--new); font: 600 1rem/1.5 system-ui, sans-serif; }
#end button + button { border-color: var(--line); color: var(--ink); margin: .3rem; } button { -webkit-tap-highlight-color: transparent; }
[hidden] { display: none !important; } #note { color: var(--new); }
@media (max-width: 38rem) {
  .top { gap: .5rem; padding: .5rem .8rem; } .top h1 { display: none; } .top .gap { display: none; } input { flex: 1; width: 4rem; min-width: 0; }
  main { padding: .8rem; gap: .8rem; } .photo { flex: 0 1 min(100vw, 60svh); align-items: center; }
  .photo img { width: 100%; height: auto; object-position: center; } #caption { font-size: 1.2rem; min-height: 3.6rem; flex: 1 0 auto; } .scale { gap: .3rem; }
  .scale button { font-size: .68rem; padding: .6rem 0 .5rem; } kbd { display: none; } .keys { gap: .3rem 1.6rem; } .keys button { padding: .5rem; font-size: .9rem; } }
@media (max-height: 34rem) { main { gap: .5rem; padding: .5rem; } #caption { font-size: 1.1rem; min-height: 0; } .ask { display: none; } }
"""

SCRIPT = """
const $ = id => document.getElementById(id), page = JSON.parse($('data').textContent);
const trials = page.items.flatMap(item => item.captions.map(caption => ({ item, caption })));
const place = 'ratings ' + page.page, fresh = { rater: '', ratings: {}, history: [], at: 0 };
let state = fresh;
try { state = Object.assign(fresh, JSON.parse(localStorage.getItem(place)) || {}); } catch { $('note').hidden = false; }
const keep = () => { try { localStorage.setItem(place, JSON.stringify(state)); $('note').hidden = true; } catch { $('note').hidden = false; } };
const buttons = [...document.querySelectorAll('.scale button')];
function draw() {
  const done = Object.keys(state.ratings).length, ended = state.at >= trials.length;
  $('count').textContent = done + ' / ' + trials.length; $('done').style.width = 100 * done / trials.length + '%';
  $('trial').hidden = $('scale').hidden = ended; $('end').hidden = !ended;
  $('undo').disabled = !state.history.length; $('back').disabled = !state.at; $('next').disabled = ended;
  if (ended) {
    const left = trials.length - done;
    $('thanks').textContent = left ? 'Not quite all' : 'Thank you';
    $('left').textContent = left ? 'Still to be rated: ' + left + ' of ' + trials.length + ' captions.' : 'All ' + trials.length + ' captions are rated.';
    $('more').hidden = !left; return; }
  const { item, caption } = trials[state.at];
  if ($('photo').src !== item.image) $('photo').src = item.image;
  $('caption').textContent = caption.text;
  buttons.forEach((button, i) => button.setAttribute('aria-pressed', state.ratings[state.at] === i + 1)); }
function go(to) { state.at = Math.max(0, Math.min(trials.length, to)); keep(); draw(); }
function rate(value) {
  if (state.at >= trials.length) return;
  state.history.push([state.at, state.ratings[state.at] || 0]); state.ratings[state.at] = value; go(state.at + 1); }
function undo() {
  const last = state.history.pop(); if (!last) return;
  if (last[1]) state.ratings[last[0]] = last[1]; else delete state.ratings[last[0]];
  go(last[0]); }
function save() {
  const ratings = trials.flatMap(({ item, caption }, i) => state.ratings[i] ? [{ image: item.name, caption: caption.text,
    sources: JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(caption.key), c => c.charCodeAt(0)))), rating: state.ratings[i] }] : []);
  const told = { format: 1, kind: 'caption ratings', page: page.page, rater: state.rater, ratings };
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([JSON.stringify(told, null, 1)], { type: 'application/json' }));
  link.download = 'ratings' + (state.rater ? '_' + state.rater.replace(/[^\\p{L}\\p{N}]+/gu, '_') : '') + '.json';
  link.click(); setTimeout(() => URL.revokeObjectURL(link.href), 1000); }
buttons.forEach((button, i) => button.onclick = () => { rate(i + 1); button.blur(); });
$('undo').onclick = undo; $('back').onclick = () => go(state.at - 1); $('next').onclick = () => go(state.at + 1);
$('more').onclick = () => go(trials.findIndex((_, i) => !state.ratings[i]));
$('save').onclick = $('save_all').onclick = save;
$('rater').value = state.rater; $('rater').oninput = () => { state.rater = $('rater').value; keep(); };
document.onkeydown = event => {
  if (event.target.tagName === 'INPUT') { if (event.key === 'Enter' || event.key === 'Escape') event.target.blur(); return; }
  if ((event.ctrlKey || event.metaKey) && event.key === 'z') { event.preventDefault(); undo(); return; }
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key >= '1' && event.key <= String(buttons.length) && event.key.length === 1) rate(+event.key);
  else if (event.key === 'ArrowRight') go(state.at + 1);
  else if (event.key === 'ArrowLeft') go(state.at - 1);
  else if (event.key === 'Backspace' || event.key === 'u') undo();
  else return;
  event.preventDefault(); };
draw();
"""


def dress(caption: str) -> str:
    """A caption as all are shown, so that none is known by its full stop, its spaces or its capitals: 'A dog 's ball .' -> 'A dog's ball'."""
    caption = re.sub(
        r"\s+([.,;:!?%)]|n't\b|'(?:s|re|ve|ll|d|m)\b)", r"\1", " ".join(caption.split())
    ).rstrip(" .")
    return caption[:1].upper() + caption[1:]


def compose(shown: list[dict], seed: int = 0) -> list[dict]:
    """What is rated, in the order it is shown in. An image holds name, image (a data: address), references and captions
    {source: caption}; a reference of its own and one of another image are added as `human` and `shuffled`.

    Captions of one image that look the same are one, with several sources. Raises UserError with fewer than two images.
    """
    if len(shown) < 2:
        raise UserError(
            f"{len(shown)} image to rate",
            "at least 2: one lends the other a wrong caption",
            "rate more images",
        )
    for name in shown[0]["captions"]:
        if name in (HUMAN, SHUFFLED):
            raise UserError(
                f"captions of a source called {name!r}",
                "another name: that one is taken by the page's own",
                "rename the file",
            )
    rng = np.random.default_rng(seed)
    order, items = rng.permutation(len(shown)), []
    human = [one["references"][rng.integers(len(one["references"]))] for one in shown]
    for number, after in zip(order, np.roll(order, -1), strict=True):
        one, sources = shown[number], {}
        for name, caption in (
            *one["captions"].items(),
            (HUMAN, human[number]),
            (SHUFFLED, human[after]),
        ):
            sources.setdefault(dress(caption), []).append(name)
        texts = list(sources)
        items.append(
            {
                "name": one["name"],
                "image": one["image"],
                "captions": [
                    {"text": texts[i], "sources": sources[texts[i]]}
                    for i in rng.permutation(len(texts))
                ],
            }
        )
    return items


def page(items: list[dict], title: str = "Rate the captions") -> str:
    """The page on which items, made by `compose`, are rated."""
    for item in items:
        if not item["image"].startswith("data:image/"):
            raise UserError(
                f"the picture {item['image'][:40]!r} of {item['name']}",
                "a data:image/ address: the page loads nothing",
                "embed the picture",
            )
    hide = lambda sources: base64.b64encode(json.dumps(sources).encode()).decode()
    shown = [
        {
            **item,
            "captions": [
                {"text": one["text"], "key": hide(one["sources"])} for one in item["captions"]
            ],
        }
        for item in items
    ]
    data = embed({"page": files.sha256(json.dumps(shown).encode()), "items": shown})
    scale = "".join(
        f'<button aria-pressed="false" aria-keyshortcuts="{i}"><b>{i}</b>{word}</button>'
        for i, word in enumerate(SCALE, 1)
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{text(title)}</title><style>{STYLE}{LOOK}</style></head><body>
<header class="top"><h1>{text(title)}</h1><span id="count"></span><span id="note" hidden>progress is not kept in this browser</span><span class="gap"></span>
<input id="rater" placeholder="Your name" aria-label="Your name" maxlength="60" autocomplete="off"><button id="save">Save ratings</button></header>
<div class="track"><div id="done"></div></div><noscript><p class="ask">This page needs JavaScript.</p></noscript>
<main><div id="end" hidden><h2 id="thanks"></h2><p id="left"></p><button id="save_all">Save ratings</button> <button id="more">Go to the next of them</button></div>
<div id="trial" style="display: contents"><div class="photo"><img id="photo" alt="the picture to compare with"></div><p id="caption" dir="auto" aria-live="polite"></p></div>
<div id="scale" style="display: contents"><p class="ask">How well does this describe the picture?</p><div class="scale" role="group" aria-label="rating">{scale}</div></div>
<p class="keys"><button id="back"><kbd>←</kbd> back</button><button id="undo"><kbd>⌫</kbd> undo</button><button id="next"><kbd>→</kbd> skip</button></p></main>
<script type="application/json" id="data">{data}</script><script>{SCRIPT}</script></body></html>
"""


def write(path, shown: list[dict], seed: int = 0) -> dict:
    """Write the page. shown: name, picture (a path), references, and captions of each source, for each image."""
    items = compose(
        [
            {**one, "image": images.data_uri(images.open_image(one["picture"]), 640)}
            for one in shown
        ],
        seed,
    )
    files.write_text(path, page(items))
    counts = {"captions": sum(len(item["captions"]) for item in items), "images": len(items)}
    print(
        f"wrote {path}: {counts['captions']} captions of {counts['images']} pictures. Open it in a browser, rate, save, and run "
        "evaluate.py --ratings on the saved files"
    )
    return counts


def read(paths: list[str]) -> list[dict]:
    """Files that the page saved, as rows of page, rater, image, caption, sources, rating. Raises UserError on anything else."""
    expected, do = "ratings that a page of evaluate.py --rate saved", "check --ratings"
    rows, raters = [], {}
    for path in paths:
        told = files.read_json(path, expected, do)
        if (
            told.get("format") != 1
            or told.get("kind") != "caption ratings"
            or not isinstance(told.get("ratings"), list)
        ):
            raise UserError(
                f"{path} with format {told.get('format')!r} and kind {told.get('kind')!r}",
                expected,
                do,
            )
        key = str(told.get("page")), str(told.get("rater") or Path(path).stem)
        if key in raters:
            raise UserError(
                f"{path} and {raters[key]} from one rater ({key[1]}) of one page",
                "one file a rater",
                "leave one out",
            )
        raters[key] = path
        for number, row in enumerate(told["ratings"], 1):
            try:
                good = (
                    type(row["rating"]) is int
                    and 1 <= row["rating"] <= len(SCALE)
                    and row["sources"]
                    and all(
                        isinstance(word, str)
                        for word in (row["image"], row["caption"], *row["sources"])
                    )
                )
            except (KeyError, TypeError):
                good = False
            if not good:
                raise UserError(
                    f"entry {number} of {path}, which is damaged",
                    f"image, caption, sources, and a rating of 1 to {len(SCALE)}",
                    do,
                )
            rows.append(
                {
                    "page": key[0],
                    "rater": key[1],
                    **{name: row[name] for name in ("image", "caption", "sources", "rating")},
                }
            )
    if not rows:
        raise UserError(
            f"no rating in {', '.join(paths)}", "at least one", "rate some captions first"
        )
    return rows


def summary(rows: list[dict]) -> dict:
    """{"sources": {source: figures}, "raters", "images", "alpha_ordinal", "alpha_interval"}; intervals are over pictures.

    Krippendorff's alpha is None where no two raters rated the same caption, or all of them gave the same rating.
    """
    sources, images = list(dict.fromkeys(name for row in rows for name in row["sources"])), {}
    for row in rows:
        images.setdefault((row["page"], row["image"]), len(images))
    result: dict = {
        "sources": {},
        "raters": len({row["rater"] for row in rows}),
        "images": len(images),
    }
    for name in sources:
        total, count, good = np.zeros((3, len(images)))
        for row in rows:
            if name in row["sources"]:
                number = images[row["page"], row["image"]]
                total[number] += row["rating"]
                count[number] += 1
                good[number] += row["rating"] >= 4
        seen = count > 0
        result["sources"][name] = {
            "images": int(seen.sum()),
            "ratings": int(count.sum()),
            "mean": total.sum() / count.sum(),
            "mean_ci95": metrics.ratio_interval(total[seen], count[seen]),
            "good": good.sum() / count.sum(),
            "good_ci95": metrics.ratio_interval(good[seen], count[seen]),
        }
    result["sources"] = dict(sorted(result["sources"].items(), key=lambda one: -one[1]["mean"]))
    raters = {name: i for i, name in enumerate(dict.fromkeys(row["rater"] for row in rows))}
    units = {
        key: i
        for i, key in enumerate(
            dict.fromkeys((row["page"], row["image"], row["caption"]) for row in rows)
        )
    }
    table = np.full((len(units), len(raters)), np.nan)
    for row in rows:
        table[units[row["page"], row["image"], row["caption"]], raters[row["rater"]]] = row[
            "rating"
        ]
    for level in ("ordinal", "interval"):
        result[f"alpha_{level}"] = metrics.agreement(table, level)
    return result


def table(result: dict) -> list[list[str]]:
    """The figures as rows of text, the first row the header."""
    span = lambda one, key, times, digits: (
        f"{times * one[key]:.{digits}f} [{times * one[key + '_ci95'][0]:.{digits}f}, {times * one[key + '_ci95'][1]:.{digits}f}]"
    )
    return [
        ["", "images", "ratings", f"mean of 1 to {len(SCALE)}", "4 or 5, %"],
        *(
            [
                name,
                str(one["images"]),
                str(one["ratings"]),
                span(one, "mean", 1, 2),
                span(one, "good", 100, 1),
            ]
            for name, one in result["sources"].items()
        ),
    ]


def agreement_line(result: dict) -> str:
    alphas = [result["alpha_ordinal"], result["alpha_interval"]]
    return f"raters: {result['raters']}; agreement: " + (
        "not defined: it takes two raters of one page, and ratings that differ"
        if None in alphas
        else "Krippendorff's alpha {:.3f} (ordinal), {:.3f} (interval)".format(*alphas)
    )
