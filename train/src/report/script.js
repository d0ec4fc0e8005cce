// Optional: a click on a key hides its curves, in the charts that the key stands above.
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
