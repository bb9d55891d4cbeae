// Stops the clips: each then shows all of its frames side by side.
const stillButton = document.getElementById('still');
stillButton.onclick = () => {
  const isStill = document.body.classList.toggle('still');
  stillButton.setAttribute('aria-pressed', isStill);
};
