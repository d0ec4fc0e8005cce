// Optional: a click on a key hides its curves in the charts below it, and a pointer over a chart shows the nearest value of
// every curve.
document.querySelectorAll(".keys").forEach(function (keys) {
  var section = keys.closest("section");
  keys.querySelectorAll(".key").forEach(function (key) {
    key.addEventListener("click", function () {
      var shown = key.getAttribute("aria-pressed") === "false";
      key.setAttribute("aria-pressed", String(shown));
      section.querySelectorAll('svg [data-series="' + key.dataset.series + '"]').forEach(function (part) {
        part.style.display = shown ? "" : "none";
      });
    });
  });
});

document.querySelectorAll(".chart").forEach(function (chart) {
  var curves = JSON.parse(chart.dataset.curves), ends = JSON.parse(chart.dataset.ends), log = chart.dataset.log === "true";
  var section = chart.closest("section"), space = "http://www.w3.org/2000/svg";
  var tip = document.createElement("div"), marks = document.createElementNS(space, "g");
  tip.className = "tip";

  // Position along an axis, from 0 to 1.
  function along(x) { return log ? Math.log(x / ends[0]) / Math.log(ends[1] / ends[0]) : (x - ends[0]) / (ends[1] - ends[0]); }
  function up(y) { return (y - ends[2]) / (ends[3] - ends[2]); }
  function written(value) { return String(Number(value.toPrecision(5))); }
  function element(name, className, text) {
    var made = document.createElement(name);
    made.className = className;
    made.textContent = text;
    return made;
  }
  function drawn(name, attributes) {
    var made = document.createElementNS(space, name);
    Object.keys(attributes).forEach(function (attribute) { made.setAttribute(attribute, attributes[attribute]); });
    marks.appendChild(made);
  }
  function hide() { tip.remove(); marks.remove(); }

  // Of every visible curve, the point nearest to a place along x.
  function nearest(place) {
    var found = [];
    curves.forEach(function (curve) {
      var key = section.querySelector('.key[data-series="' + curve[0] + '"]'), best = -1, distance = Infinity;
      if (key && key.getAttribute("aria-pressed") === "false") return;
      curve[1].forEach(function (x, index) {
        var away = Math.abs(along(x) - place);
        if (away < distance) { distance = away; best = index; }
      });
      if (best < 0) return;
      var name = key ? key.textContent.trim() : "";
      var colour = key ? key.querySelector(".swatch").style.background : "currentColor";
      found.push({ name: name, colour: colour, x: curve[1][best], y: curve[2][best], distance: distance });
    });
    return found;
  }

  function show(event) {
    var svg = Array.prototype.find.call(chart.querySelectorAll("svg"), function (svg) { return svg.clientWidth > 0; });
    if (!svg) return;
    var box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    var frame = svg.dataset.frame.split(" ").map(Number), width = frame[2] - frame[0], height = frame[3] - frame[1];
    var points = nearest(((event.clientX - box.left) * scale - frame[0]) / width);
    hide();
    if (!points.length) return;
    var leader = points.reduce(function (a, b) { return b.distance < a.distance ? b : a; });
    var across = frame[0] + width * along(leader.x);
    marks.replaceChildren();
    drawn("line", { x1: across, x2: across, y1: frame[1], y2: frame[3], stroke: "currentColor", "stroke-width": 2, opacity: 0.4 });
    tip.replaceChildren(element("div", "faint", chart.dataset.x + " " + written(leader.x)));
    points.forEach(function (point) {
      var row = element("div", "row", ""), swatch = element("span", "swatch", ""), there = along(point.x);
      swatch.style.background = point.colour;
      row.append(swatch, element("span", "", point.name), element("b", "", written(point.y)));
      // Curves need not have their points at the same places.
      if (Math.abs(there - along(leader.x)) > 1e-3) row.append(element("span", "faint", "at " + written(point.x)));
      tip.append(row);
      var high = up(point.y);
      if (high <= 1) drawn("circle", { cx: frame[0] + width * there, cy: frame[3] - height * high, r: 9, fill: point.colour });
    });
    svg.append(marks);
    chart.append(tip);
    var left = across / scale + 14;
    if (left + tip.offsetWidth > box.width) left = Math.max(0, across / scale - 14 - tip.offsetWidth);
    tip.style.left = left + "px";
  }
  chart.addEventListener("pointermove", show);
  chart.addEventListener("pointerdown", show);
  chart.addEventListener("pointerleave", hide);
});
