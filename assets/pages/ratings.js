// Rate captions, one at a time. The page keeps the ratings in this browser until they are saved.
const byId = id => document.getElementById(id);
const page = JSON.parse(byId('data').textContent);
const trials = page.items.flatMap(item => item.captions.map(caption => ({ item, caption })));
const buttons = [...document.querySelectorAll('.scale button')];
const storageKey = `ratings ${page.page}`;

// ratings: {trial: 1 to 5}; history: [trial, the rating it had before], for undo; at: the trial shown
let state = { rater: '', ratings: {}, history: [], at: 0 };
try {
  Object.assign(state, JSON.parse(localStorage.getItem(storageKey)) || {});
} catch {
  byId('note').hidden = false; // private windows may have no storage
}

function keep() {
  try {
    localStorage.setItem(storageKey, JSON.stringify(state));
    byId('note').hidden = true;
  } catch {
    byId('note').hidden = false;
  }
}

function drawEnd(unrated) {
  byId('thanks').textContent = unrated ? 'Not quite all' : 'Thank you';
  byId('left').textContent = unrated
    ? `Still to be rated: ${unrated} of ${trials.length} captions.`
    : `All ${trials.length} captions are rated.`;
  byId('more').hidden = !unrated;
}

function drawTrial({ item, caption }) {
  if (byId('photo').src !== item.image) byId('photo').src = item.image;
  byId('caption').textContent = caption.text;
  buttons.forEach((button, index) => {
    button.setAttribute('aria-pressed', state.ratings[state.at] === index + 1);
  });
}

function draw() {
  const done = Object.keys(state.ratings).length;
  const ended = state.at >= trials.length;
  byId('count').textContent = `${done} / ${trials.length}`;
  byId('done').style.width = `${(100 * done) / trials.length}%`;
  byId('trial').hidden = ended;
  byId('scale').hidden = ended;
  byId('end').hidden = !ended;
  byId('undo').disabled = !state.history.length;
  byId('back').disabled = !state.at;
  byId('next').disabled = ended;
  if (ended) drawEnd(trials.length - done);
  else drawTrial(trials[state.at]);
}

function go(trial) {
  state.at = Math.max(0, Math.min(trials.length, trial));
  keep();
  draw();
}

function rate(value) {
  if (state.at >= trials.length) return;
  state.history.push([state.at, state.ratings[state.at] || 0]);
  state.ratings[state.at] = value;
  go(state.at + 1);
}

function undo() {
  const last = state.history.pop();
  if (!last) return;
  const [trial, before] = last;
  if (before) state.ratings[trial] = before;
  else delete state.ratings[trial];
  go(trial);
}

// The sources are encoded, so that nobody reads them in passing.
function sourcesOf(caption) {
  const bytes = Uint8Array.from(atob(caption.key), letter => letter.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}

function save() {
  const ratings = [];
  trials.forEach(({ item, caption }, trial) => {
    if (!state.ratings[trial]) return;
    ratings.push({
      image: item.name,
      caption: caption.text,
      sources: sourcesOf(caption),
      rating: state.ratings[trial],
    });
  });
  const content = {
    format: 1,
    kind: 'caption ratings',
    page: page.page,
    rater: state.rater,
    ratings,
  };
  const text = JSON.stringify(content, null, 1);
  const suffix = state.rater ? '_' + state.rater.replace(/[^\p{L}\p{N}]+/gu, '_') : '';
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  link.download = `ratings${suffix}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

buttons.forEach((button, index) => {
  button.onclick = () => {
    rate(index + 1);
    button.blur();
  };
});
byId('undo').onclick = undo;
byId('back').onclick = () => go(state.at - 1);
byId('next').onclick = () => go(state.at + 1);
byId('more').onclick = () => go(trials.findIndex((_, trial) => !state.ratings[trial]));
byId('save').onclick = save;
byId('save_all').onclick = save;
byId('rater').value = state.rater;
byId('rater').oninput = () => {
  state.rater = byId('rater').value;
  keep();
};
document.onkeydown = event => {
  if (event.target.tagName === 'INPUT') {
    if (event.key === 'Enter' || event.key === 'Escape') event.target.blur();
    return;
  }
  if ((event.ctrlKey || event.metaKey) && event.key === 'z') {
    event.preventDefault();
    undo();
    return;
  }
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const value = ['1', '2', '3', '4', '5'].indexOf(event.key) + 1;
  if (value) rate(value);
  else if (event.key === 'ArrowRight') go(state.at + 1);
  else if (event.key === 'ArrowLeft') go(state.at - 1);
  else if (event.key === 'Backspace' || event.key === 'u') undo();
  else return;
  event.preventDefault();
};
draw();
