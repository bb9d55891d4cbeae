// Plays how texts were unmasked. Each article holds spans with data-step (the call of the network
// that revealed them; 0: given) and data-p (the probability they had when they were drawn).
// The bar at the bottom drives one article, or all articles that the filter shows.
const byId = id => document.getElementById(id);
const all = query => [...document.querySelectorAll(query)];
const slider = byId('step');
const counter = byId('count');
const playButton = byId('play');
const speed = byId('speed');
const colouring = byId('colour');

const cards = all('article').map(element => {
  const pieces = [...element.querySelectorAll('[data-step]')].map(span => {
    const step = +span.dataset.step;
    const probability = +span.dataset.p;
    span.title = step ? `call ${step}, probability ${probability.toFixed(3)}` : 'given';
    return { span, step, probability };
  });
  return { element, pieces, calls: Math.max(0, ...pieces.map(piece => piece.step)) };
});

let chosen = null; // the one card that the bar drives; null: all shown cards
let timer = null; // runs while the page plays

function shownCards() {
  return cards.filter(card => !card.element.hidden);
}

function lookOf(step, now, last) {
  if (step > now) return 'hidden';
  if (step === 0) return 'given';
  return step === now && now < last ? 'fresh' : '';
}

function colourOf(piece, card, now) {
  if (piece.step > now || !piece.step || colouring.value === 'none') return '';
  const share = colouring.value === 'order' ? piece.step / card.calls : 1 - piece.probability;
  return `hsla(${200 - 180 * share}, 80%, 50%, .22)`; // from blue (early, sure) to red
}

function draw() {
  const last = +slider.max;
  counter.textContent = `${slider.value} / ${last}`;
  for (const card of shownCards()) {
    const now = chosen && chosen !== card ? Infinity : +slider.value;
    for (const piece of card.pieces) {
      // Only what changes is written: 500 cards stay fluent.
      const look = lookOf(piece.step, now, last);
      if (piece.span.className !== look) piece.span.className = look;
      const colour = colourOf(piece, card, now);
      if (piece.span.dataset.paint !== colour) {
        piece.span.dataset.paint = colour;
        piece.span.style.backgroundColor = colour;
      }
    }
  }
}

function stop() {
  clearInterval(timer);
  timer = null;
  playButton.textContent = 'Play';
}

function tick() {
  slider.value = +slider.value + 1;
  draw();
  if (+slider.value < +slider.max) return;
  if (chosen) drive(null);
  else stop();
}

function start() {
  if (+slider.value >= +slider.max) slider.value = 0;
  draw();
  playButton.textContent = 'Pause';
  timer = setInterval(tick, 1000 / +speed.value);
}

function toggle() {
  if (timer) stop();
  else start();
}

// Complete all texts and stop. Then let the bar drive `card`, or all shown cards (null).
function drive(card) {
  stop();
  chosen = card;
  for (const other of cards) other.element.classList.toggle('playing', other === chosen);
  slider.max = Math.max(0, ...(chosen ? [chosen] : shownCards()).map(each => each.calls));
  slider.value = slider.max;
  draw();
}

function playCard(card) {
  if (chosen === card) {
    toggle();
  } else {
    drive(card);
    start();
  }
}

function filter(button) {
  const { key, value } = button.dataset;
  for (const other of all('.filters button')) {
    other.setAttribute('aria-pressed', other === button);
  }
  for (const { element } of cards) element.hidden = key && element.dataset[key] !== value;
  drive(null);
}

function moveTo(step) {
  stop();
  slider.value = step;
  draw();
}

for (const card of cards) {
  card.element.onclick = event => {
    // A click that ends the selection of text must not start the player.
    const ignored = getSelection().isCollapsed ? 'details' : 'details, .caption';
    if (!event.target.closest(ignored)) playCard(card);
  };
  card.element.onkeydown = event => {
    if (event.key === 'Enter' && event.target === card.element) playCard(card);
  };
}
for (const button of all('.filters button')) button.onclick = () => filter(button);
playButton.onclick = toggle;
slider.oninput = () => moveTo(slider.value);
colouring.onchange = draw;
speed.onchange = () => {
  if (!timer) return;
  stop();
  start();
};
document.onkeydown = event => {
  if (event.target.tagName === 'SELECT' || event.altKey || event.ctrlKey || event.metaKey) return;
  const arrow = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (event.key === ' ' && !['BUTTON', 'SUMMARY'].includes(event.target.tagName)) {
    event.preventDefault();
    toggle();
  } else if (event.key === 'Escape') {
    drive(null);
  } else if (arrow && !event.target.closest('.table')) {
    event.preventDefault();
    moveTo(+slider.value + arrow);
  }
};

drive(null);
const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
if ('autoplay' in document.body.dataset && !still) start();
