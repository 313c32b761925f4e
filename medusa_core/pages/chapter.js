// Pause, or a move of the slider, interrupts an animation. plotly.js then rejects the promise of its own call, without
// a reason and where nobody can catch it, and the console would show that as an exception.
window.addEventListener("unhandledrejection", (event) => {
  if (event.reason === undefined) event.preventDefault();
});
