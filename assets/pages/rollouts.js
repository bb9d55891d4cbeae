// Plays clips of episodes. Each article has a slider over its images; the marks and the chunk of
// actions are those that the policy followed at the image shown.
const all = query => [...document.querySelectorAll(query)];
const byId = id => document.getElementById(id);
const playButton = byId('play');
const speed = byId('speed');
const PAUSE = 10; // ticks that a clip rests on its last image
const clips = JSON.parse(byId('data').textContent);

const cards = all('article').map((element, index) => {
  const find = name => element.querySelector('.' + name);
  const first = element.querySelector('img');
  const canvas = document.createElement('canvas');
  const { frames, chunks, stride } = clips[index];
  return {
    element,
    chunks,
    stride, // steps of control from an image to the next
    canvas,
    first,
    sources: [first.src, ...frames],
    images: null, // decoded only while the card is in sight
    slider: find('frame'),
    toggle: find('toggle'),
    at: find('at'),
    marks: { take: find('take'), put: find('put') },
    grid: find('chunk'),
    call: find('call'),
    calls: find('calls'),
    unmasking: find('unmasking'),
    paused: false,
    rest: 0,
    drawn: null, // the chunk whose cells are in the grid
  };
});

let timer = null; // runs while the page plays

// --- one card ---------------------------------------------------------------------------------

function paint(card, image) {
  if (card.images?.[+card.slider.value] !== image) return; // another image is shown by now
  const { canvas } = card;
  if (canvas.width !== image.naturalWidth) {
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
  }
  canvas.getContext('2d').drawImage(image, 0, 0);
  if (!canvas.isConnected) card.first.replaceWith(canvas);
}

function load(card) {
  if (card.images) return;
  card.images = card.sources.map(source => {
    const image = new Image();
    image.onload = () => paint(card, image);
    image.src = source;
    return image;
  });
}

function fresh(className, text = '') {
  const span = document.createElement('span');
  span.className = className;
  span.textContent = text;
  return span;
}

function build(card, chunk) {
  card.drawn = chunk;
  const { actions, calls, names } = chunk;
  const last = Math.max(0, ...(calls ?? []));
  card.grid.style.gridTemplateColumns = `auto repeat(${actions.length}, 1fr)`;
  const rows = names.map((name, row) => [
    fresh('name', name),
    ...actions.map(action => {
      const cell = fresh('cell');
      cell.title = `${name} ${action[row].toFixed(2)}`;
      return cell;
    }),
  ]);
  if (last > 1) rows.push([fresh('name', 'call'), ...calls.map(call => fresh('', call || '–'))]);
  card.grid.replaceChildren(...rows.flat());
  card.cells = rows.slice(0, names.length).map(row => row.slice(1));
  card.call.hidden = last < 2;
  card.call.max = last;
  card.call.value = last;
  card.unmasking.hidden = !calls;
}

function showChunk(card, chunk, frame) {
  const { actions, calls } = chunk;
  const now = +card.call.value;
  const over = frame === card.sources.length - 1; // the last image has no next action
  card.cells.forEach((row, number) => {
    row.forEach((cell, step) => {
      const hidden = calls && calls[step] > now;
      const value = actions[step][number];
      const colour = value < 0 ? '--minus' : '--plus';
      const when = chunk.start + step;
      const first = frame * card.stride;
      const next = when >= first && when < first + card.stride;
      const look = next && !over ? ' now' : when < first ? ' past' : '';
      cell.className = 'cell' + (hidden ? ' masked' : look);
      cell.textContent = hidden ? '·' : '';
      cell.style.backgroundImage = hidden
        ? ''
        : `linear-gradient(0deg, ${[0, 1].map(() => `rgba(var(${colour}), ${Math.abs(value)})`)})`;
    });
  });
  if (!calls) return;
  const last = +card.call.max;
  const given = calls.filter(call => call === 0).length;
  const held = given ? `, ${given} given` : '';
  card.calls.textContent = last > 1 ? `call ${now} / ${last}${held}` : `revealed in one call${held}`;
}

function place(mark, point) {
  if (!point) {
    mark.setAttribute('display', 'none');
    return;
  }
  mark.removeAttribute('display');
  mark.setAttribute('transform', `translate(${100 * point[0]} ${100 * point[1]})`);
}

function draw(card) {
  const frame = +card.slider.value;
  card.at.textContent = `${frame} / ${card.slider.max}`;
  const image = card.images?.[frame];
  if (image?.complete && image.naturalWidth) paint(card, image);
  const chunk = card.chunks.findLast(each => each.since <= frame * card.stride);
  for (const name of ['take', 'put']) place(card.marks[name], chunk?.[name]);
  if (!chunk) {
    card.grid.replaceChildren(fresh('name', 'no chunk yet'));
    card.drawn = null;
    card.unmasking.hidden = true;
    return;
  }
  if (card.drawn !== chunk) build(card, chunk);
  showChunk(card, chunk, frame);
}

function pause(card, paused) {
  card.paused = paused;
  drawToggle(card);
}

function drawToggle(card) {
  const playing = timer && !card.paused;
  card.toggle.textContent = playing ? '❚❚' : '▶';
  card.toggle.setAttribute('aria-label', playing ? 'pause' : 'play');
}

function advance(card) {
  if (card.element.hidden || card.paused || !card.images) return;
  if (+card.slider.value < +card.slider.max) {
    card.slider.value = +card.slider.value + 1;
  } else if (card.rest < PAUSE) {
    card.rest += 1;
    return;
  } else {
    card.rest = 0;
    card.slider.value = 0;
  }
  draw(card);
}

// --- the page ---------------------------------------------------------------------------------

function stop() {
  clearInterval(timer);
  timer = null;
  playButton.textContent = 'Play';
  cards.forEach(drawToggle);
}

function start() {
  clearInterval(timer);
  timer = setInterval(() => cards.forEach(advance), 1000 / +speed.value);
  playButton.textContent = 'Pause';
  cards.forEach(drawToggle);
}

function count() {
  const shown = cards.filter(card => !card.element.hidden);
  const done = shown.filter(card => card.element.dataset.verdict === 'done').length;
  const share = shown.length ? ` (${Math.round((100 * done) / shown.length)}%)` : '';
  byId('count').textContent = `${done} of ${shown.length} done${share}`;
}

function filter(button) {
  for (const other of button.parentElement.children) {
    other.setAttribute('aria-pressed', other === button);
  }
  const wanted = all('.filters [aria-pressed="true"]').map(pressed => pressed.dataset);
  for (const { element } of cards) {
    element.hidden = wanted.some(({ key, value }) => value && element.dataset[key] !== value);
  }
  count();
}

for (const card of cards) {
  card.slider.oninput = () => {
    pause(card, true);
    draw(card);
  };
  card.call.oninput = () => {
    pause(card, true);
    draw(card);
  };
  card.toggle.onclick = () => {
    if (timer) {
      pause(card, !card.paused);
      return;
    }
    // The page stands still: only this card is to go on.
    for (const other of cards) other.paused = other !== card;
    start();
  };
  draw(card);
}
for (const button of all('.filters button')) button.onclick = () => filter(button);
playButton.onclick = () => {
  if (timer) {
    stop();
    return;
  }
  for (const card of cards) card.paused = false;
  start();
};
speed.onchange = () => {
  if (timer) start();
};

const byElement = new Map(cards.map(card => [card.element, card]));
const sight = new IntersectionObserver(
  entries => {
    for (const entry of entries) {
      const card = byElement.get(entry.target);
      if (entry.isIntersecting) load(card);
      else card.images = null;
    }
  },
  { rootMargin: '100px' },
);
for (const card of cards) sight.observe(card.element);

count();
if (matchMedia('(prefers-reduced-motion: reduce)').matches) stop();
else start();
