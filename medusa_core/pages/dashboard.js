"use strict";
// Draws the dashboard's figures and narrows them to what is chosen. `narrow` is plots/dashboard.py's, in JavaScript.
const { panels, figures, template, nothing } = JSON.parse(document.getElementById("figures").textContent);
const filters = [...document.querySelectorAll("select[data-filter]")];
const words = Object.fromEntries(filters.map((filter) => [filter.dataset.filter, filter.labels[0].firstChild.textContent]));
const NARROWING = ["head", "acceptance", "temperature"];
const POINTWISE = ["x", "y", "text", "customdata"];

function narrow(figure, wanted) {
  const fits = (meta) => NARROWING.every((key) => wanted[key] === null || !meta?.[key] || meta[key].includes(wanted[key]));
  figure.data = figure.data.filter((trace) => {
    if (!trace.meta || !trace.meta.points) return fits(trace.meta);
    const kept = trace.meta.points.map(fits);
    for (const name of POINTWISE) {
      if (Array.isArray(trace[name])) trace[name] = trace[name].filter((_, place) => kept[place]);
    }
    return kept.some(Boolean);
  });
  return figure;
}

function draw() {
  const chosen = Object.fromEntries(filters.map((filter) => [filter.dataset.filter, filter.value || null]));
  panels.forEach((panel, number) => {
    const place = document.getElementById(`panel-${number}`);
    const index = panel.figures[JSON.stringify(panel.by.map((name) => chosen[name]))] ?? null;
    const figure = index === null ? { data: [] } : narrow(structuredClone(figures[index]), chosen);
    document.getElementById(`shown-${number}`).textContent = panel.uses
      .map((name) => `${words[name].toLowerCase()} ${chosen[name] ?? "all"}`)
      .join(", ");
    if (figure.data.length) {
      place.querySelector(".note")?.remove();
      Plotly.react(place, figure.data, { ...figure.layout, template }, { responsive: true, displaylogo: false });
    } else {
      Plotly.purge(place);
      const note = document.createElement("p");
      note.className = "note";
      note.textContent = `${panel.name}. ${nothing}`;
      place.replaceChildren(note);
    }
  });
  document.getElementById("chosen").textContent = filters
    .map((filter) => filter.selectedOptions[0].textContent)
    .join(", ");
}

filters.forEach((filter) => filter.addEventListener("change", draw));
draw();
