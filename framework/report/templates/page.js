"use strict";
(function () {
  function read(id) { return JSON.parse(document.getElementById(id).textContent); }
  var specs = read("specs"), dots = read("dots"), samples = read("read");
  var dialog = document.getElementById("reader"), shown = null;

  /* The tooltip: what the nearest dot, or a mark, says of itself. */
  var tip = document.getElementById("tip");
  function dotOf(item) {
    var datum = item && item.datum;
    while (datum && datum.datum) { datum = datum.datum; }
    return datum && datum.at !== undefined ? datum : null;
  }
  function figure(value) { return value === null ? "not measured" : value.toFixed(2); }
  function tell(handler, event, item, value) {
    tip.hidden = value === undefined || value === null || value === "";
    if (tip.hidden) { return; }
    var dot = dotOf(item), lines = dot ? { curve: dot.curve, run: dot.run, seed: dot.seed } : value;
    if (dot) {
      lines[dot.axis] = dot.at;
      lines["KL (nats)"] = figure(dot.kl_nats);
      lines.proxy = figure(dot.proxy);
      lines.gold = figure(dot.gold);
    }
    tip.textContent = "";
    Object.keys(lines).forEach(function (name) {
      var row = put(tip, "div", "");
      put(row, "span", name);
      put(row, "b", String(lines[name]));
    });
    var left = event.clientX + 14, top = event.clientY + 14;
    tip.style.left = Math.max(4, Math.min(left, window.innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = (top + tip.offsetHeight > window.innerHeight ? event.clientY - tip.offsetHeight - 10 : top) + "px";
  }

  /* Charts: each is drawn as it comes into sight; until then, and in print, its picture stands there. */
  function draw(box) {
    var spec = specs[box.dataset.spec];
    spec.datasets.points = dots;
    window.vegaEmbed(box, spec, { actions: false, ast: true, renderer: "svg", tooltip: tell }).then(function (drawn) {
      drawn.view.addEventListener("click", function (event, item) {
        var dot = dotOf(item);
        if (dot && dot.method !== "best-of-n") { open(dot.run, dot.seed, dot.at); }
      });
    }).catch(function () { box.closest("figure").classList.remove("drawn"); });
  }
  var watcher = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (entry.isIntersecting) {
        watcher.unobserve(entry.target);
        entry.target.classList.add("drawn");
        entry.target.querySelectorAll(".chart").forEach(draw);
      }
    });
  }, { rootMargin: "400px" });
  document.querySelectorAll("figure").forEach(function (figure) { watcher.observe(figure); });

  /* The reader: what a run wrote at a step. */
  function named(run, seed) { return run + ", seed " + seed; }
  function of(name) {
    return dots.filter(function (dot) { return named(dot.run, dot.seed) === name && dot.method !== "best-of-n"; });
  }
  function put(parent, tag, text, kind) {
    var child = document.createElement(tag);
    child.textContent = text;
    if (kind) { child.className = kind; }
    parent.appendChild(child);
    return child;
  }
  function open(run, seed, at) {
    var name = named(run, seed), own = of(name);
    var place = own.findIndex(function (dot) { return dot.at === at; });
    if (place < 0) { return; }
    var dot = own[place], found = (samples[name] || {})[String(at)] || [];
    shown = { run: run, seed: seed, own: own, place: place };
    document.getElementById("reader-title").textContent = name + ": " + dot.axis + " " + at;
    document.getElementById("reader-figures").textContent =
      figure(dot.kl_nats) + " nats · proxy " + figure(dot.proxy) + " · gold " + figure(dot.gold);
    var box = document.getElementById("reader-samples");
    box.textContent = found.length ? "" : "No samples were kept for this step.";
    found.forEach(function (sample) {
      var card = put(box, "article", "", sample.is_typical ? "sample typical" : "sample");
      var head = put(card, "header", "");
      put(head, "span", sample.label);
      if (sample.gap) { put(head, "strong", sample.gap); }
      var quote = put(card, "blockquote", "");
      quote.dir = "auto";
      put(quote, "span", sample.prompt, "prompt");
      quote.appendChild(document.createTextNode(sample.response));
      put(card, "footer", sample.figures);
    });
    dialog.querySelectorAll("[data-move]").forEach(function (button) {
      button.disabled = !own[place + Number(button.dataset.move)];
    });
    if (!dialog.open) { dialog.showModal(); }
    dialog.scrollTop = 0;
  }
  function move(by) {
    var next = shown && shown.own[shown.place + by];
    if (next) { open(shown.run, shown.seed, next.at); }
  }
  dialog.addEventListener("click", function (event) {
    if (event.target === dialog || event.target.hasAttribute("data-close")) { dialog.close(); }
    if (event.target.dataset.move) { move(Number(event.target.dataset.move)); }
  });
  dialog.addEventListener("keydown", function (event) {
    if (event.key === "ArrowLeft") { move(-1); }
    if (event.key === "ArrowRight") { move(1); }
  });

  /* The same without a mouse: a run and a step by name. */
  var chooser = document.querySelector(".chooser"), names = Object.keys(samples);
  function steps() {
    chooser.at.textContent = "";
    of(chooser.run.value).forEach(function (dot) { put(chooser.at, "option", String(dot.at)); });
  }
  if (chooser && names.length) {
    names.forEach(function (name) { put(chooser.run, "option", name); });
    chooser.addEventListener("change", function (event) { if (event.target === chooser.run) { steps(); } });
    chooser.addEventListener("submit", function (event) {
      event.preventDefault();
      var own = of(chooser.run.value), at = Number(chooser.at.value);
      if (own.length) { open(own[0].run, own[0].seed, at); }
    });
    chooser.hidden = false;
    steps();
  }

  /* A page of runs that go on loads itself again, but not under a reader's eyes. */
  var seconds = Number(document.body.dataset.live);
  if (seconds) {
    window.setInterval(function () { if (!dialog.open) { window.location.reload(); } }, 1000 * seconds);
  }
})();
