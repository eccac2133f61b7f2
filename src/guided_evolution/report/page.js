"use strict";
// Draws the figures that the page carries as JSON, each when it comes near the window.
const narrow = window.matchMedia("(max-width: 600px)").matches;

function draw(place) {
  const figure = JSON.parse(document.getElementById("figure-" + place.dataset.figure).textContent);
  if (narrow) {
    figure.layout.margin = { ...figure.layout.margin, l: 48, r: 8 };
    for (const trace of figure.data) {
      if (trace.marker && trace.marker.showscale) trace.marker.showscale = false;
    }
  }
  const options = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "resetScale2d"]] };
  Plotly.newPlot(place, figure.data, figure.layout, options).then(() => { place.dataset.drawn = "yes"; });
}

const places = document.querySelectorAll(".chart");
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  }
}, { rootMargin: "800px" });
places.forEach((place) => watcher.observe(place));
window.addEventListener("beforeprint", () => {
  places.forEach((place) => { if (!place.dataset.drawn) draw(place); });
});
