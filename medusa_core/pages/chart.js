// Draws the figure of widgets_chart.Chart: once when it is first on the page, and once for each change.
let loading = null; // a promise of plotly.js

// JupyterLab has a plotly.js on its page once a saved figure is drawn; another front end is sent the kernel's.
async function load(model) {
  if (window.Plotly) return;
  await new Promise((resolve, reject) => {
    model.on("msg:custom", (_, [source]) => {
      const script = document.createElement("script");
      script.onload = resolve;
      script.onerror = () => reject(new Error("this page does not let plotly.js run"));
      script.src = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
      document.head.append(script);
    });
    model.send("plotly.js");
  });
}

// JupyterLab takes the output away before it has the chart: without its height, the page would scroll to another place.
function keepHeights(kept) {
  for (const area of document.querySelectorAll(".jp-OutputArea")) {
    area.style.minHeight = kept ? `${area.offsetHeight}px` : "";
  }
}

function initialize({ model }) {
  // Not awaited: a page takes no message before this returns.
  loading = load(model).then(() => {
    keepHeights(true);
    model.set("ready", true);
    model.save_changes();
  });
}

async function render({ model, el }) {
  let width = 0; // none while it is not on the page
  const draw = () => {
    const { data, layout } = JSON.parse(model.get("figure"));
    el.style.minHeight = `${layout.height}px`; // or the page would jump before it is drawn
    width = el.clientWidth;
    if (!width || !window.Plotly) return;
    Plotly.react(el, data, { width, ...layout });
    keepHeights(false);
  };
  const resized = new ResizeObserver(() => {
    if (el.clientWidth !== width) draw();
  });
  draw();
  await loading;
  draw();
  model.on("change:figure", draw);
  resized.observe(el);
  return () => {
    resized.disconnect();
    Plotly.purge(el);
  };
}

export default { initialize, render };
