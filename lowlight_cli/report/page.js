"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const between = (value, least, most) => Math.min(Math.max(value, least), most);

  /* A slider over two pictures. `share` is where it stands, from 0 to 1, within what is visible of them. */
  class Pair {
    constructor(element, visible = () => [0, 1]) {
      this.element = element;
      this.visible = visible;
      this.images = [element.querySelector(".left"), element.querySelector(".right")];
      this.labels = element.querySelectorAll("b");
      this.handle = element.querySelector(".handle");
      this.share = 0.5;
      element.addEventListener("keydown", (event) => this.onKey(event));
      element.addEventListener("pointerdown", (event) => this.onDown(event));
      element.addEventListener("pointermove", (event) => this.onMove(event));
      element.addEventListener("pointerup", (event) => this.holds(event) && this.follow(event));
    }

    get isZoomed() {
      return this.element.parentElement.classList.contains("zoomed");
    }

    /* Name what lies at the left and at the right. */
    tell(left, right) {
      [left, right].forEach((words, side) => { this.labels[side].textContent = words; });
      this.names = [left, right];
      this.move(this.share);
    }

    /* Show pictures; null takes one away, and with it the memory of its pixels. */
    show(sources) {
      this.images.forEach((image, side) => {
        if (sources[side]) { if (image.src !== sources[side]) image.src = sources[side]; }
        else image.removeAttribute("src");
      });
    }

    get isFilled() {
      return this.images.every((image) => image.hasAttribute("src"));
    }

    move(share) {
      this.share = between(share, 0, 1);
      const [from, to] = this.visible();
      const percent = Math.round(this.share * 100);
      this.element.style.setProperty("--at", `${(from + this.share * (to - from)) * 100}%`);
      this.element.setAttribute("aria-valuenow", percent);
      this.element.setAttribute("aria-valuetext", `${percent} % ${this.names?.[0] ?? "left"}`);
    }

    follow(event) {
      const box = this.element.getBoundingClientRect();
      const [from, to] = this.visible();
      this.move(((event.clientX - box.left) / box.width - from) / (to - from));
    }

    holds(event) {
      return this.element.hasPointerCapture(event.pointerId);
    }

    onDown(event) {
      if (event.button !== 0 || (this.isZoomed && event.target !== this.handle)) return;
      this.element.setPointerCapture(event.pointerId);
      this.element.focus({ preventScroll: true });
      // A finger may be about to scroll the page: it moves the slider only once it goes sideways, or is lifted.
      this.begun = event.pointerType === "touch" ? event : null;
      if (!this.begun) this.follow(event);
    }

    onMove(event) {
      if (!this.holds(event)) return;
      if (this.begun) {
        const [across, along] = [event.clientX - this.begun.clientX, event.clientY - this.begun.clientY].map(Math.abs);
        if (across < 4 || across < along) return;
        this.begun = null;
      }
      this.follow(event);
    }

    onKey(event) {
      const step = event.shiftKey ? 0.1 : 0.02;
      const to = { ArrowLeft: this.share - step, ArrowRight: this.share + step, Home: 0, End: 1 }[event.key];
      if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.move(to);
    }
  }

  /* One picture of the page, before and after; more than two are chosen from. */
  class Card {
    constructor(element, number) {
      this.element = element;
      this.number = number;
      this.about = JSON.parse(element.dataset.about);
      this.chosen = [0, Math.min(1, this.about.views.length - 1)];
      this.pair = new Pair(element.querySelector(".pair"));
      ["left", "right"].forEach((name, side) => {
        element.querySelector(`select.${name}`)?.addEventListener("change", (event) => {
          this.chosen[side] = Number(event.target.value);
          this.refresh();
        });
      });
      this.refresh();
    }

    get views() {
      return this.chosen.map((place) => this.about.views[place]);
    }

    get labels() {
      return this.views.map(([label, note]) => (note ? `${label}, ${note}` : label));
    }

    get sources() {
      return this.chosen.map((place) => {
        const text = byId(`v${this.number}-${place}`)?.textContent;
        return text ? `data:image/webp;base64,${text}` : null;
      });
    }

    refresh() {
      this.pair.tell(...this.labels);
      this.pair.show(this.isNear ? this.sources : [null, null]);
    }
  }

  const cards = [...document.querySelectorAll(".card")].map((element, number) => new Card(element, number));
  const cardOf = new Map(cards.map((card) => [card.element, card]));

  /* Pictures are decoded when they come within a window's height, and let go when they leave. */
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const card = cardOf.get(entry.target);
      card.isNear = entry.isIntersecting;
      card.refresh();
    }
  }, { rootMargin: "100% 0px" });
  cards.forEach((card) => near.observe(card.element));

  // The pictures' data follow this script, and in a long page they take seconds to arrive.
  const arriving = setInterval(() => {
    if (document.readyState !== "loading") clearInterval(arriving);
    cards.filter((card) => card.isNear && !card.pair.isFilled).forEach((card) => card.refresh());
  }, 100);

  const viewer = byId("viewer");
  const stage = viewer.querySelector(".stage");
  const large = new Pair(stage.querySelector(".pair"), () => {
    const whole = large.element.getBoundingClientRect();
    const seen = stage.getBoundingClientRect();
    if (!whole.width) return [0, 1];
    const left = Math.max(whole.left, seen.left);
    const right = Math.min(whole.right, seen.left + stage.clientWidth);
    return [(left - whole.left) / whole.width, (right - whole.left) / whole.width];
  });
  const zooms = [...viewer.querySelectorAll("[data-zoom]")];
  let shown = null;
  let zoom = 0;

  const size = () => {
    if (!shown) return;
    const [width, height] = [2, 3].map((side) => Math.max(...shown.views.map((view) => view[side])));
    stage.classList.toggle("zoomed", zoom > 0);
    const fit = Math.min(stage.clientWidth / width, stage.clientHeight / height);
    const scale = zoom ? zoom / devicePixelRatio : fit;
    large.element.style.width = `${width * scale}px`;
    large.element.style.height = `${height * scale}px`;
    const whole = `${shown.about.width} × ${shown.about.height} pixels`;
    byId("viewer-note").textContent = width === shown.about.width && height === shown.about.height
      ? `The whole picture, ${whole}; 1:1 shows each of them as one of the screen's.`
      : `A preview of ${width} × ${height} pixels; the picture has ${whole}. `
        + "1:1 shows each pixel of the preview as one of the screen's.";
    large.move(large.share);
  };

  const setZoom = (wanted) => {
    zoom = wanted;
    zooms.forEach((button) => button.setAttribute("aria-pressed", Number(button.dataset.zoom) === zoom));
    size();
    stage.scrollTo((stage.scrollWidth - stage.clientWidth) / 2, (stage.scrollHeight - stage.clientHeight) / 2);
    large.move(large.share);
  };

  const open = (number) => {
    if (!cards[number]) return;
    shown = cards[number];
    byId("viewer-name").textContent = shown.about.name;
    byId("previous").disabled = number === 0;
    byId("next").disabled = number === cards.length - 1;
    large.element.setAttribute("aria-label", `${shown.labels.join(" and ")}: ${shown.about.name}`);
    large.tell(...shown.labels);
    large.show(shown.sources);
    if (!viewer.open) viewer.showModal();
    setZoom(zoom);
    large.element.focus({ preventScroll: true });
  };
  const turn = (by) => open(shown.number + by);

  cards.forEach((card) => {
    card.element.querySelector(".open").addEventListener("click", () => open(card.number));
    card.pair.element.addEventListener("dblclick", () => open(card.number));
    card.pair.element.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      open(card.number);
    });
  });
  zooms.forEach((button) => button.addEventListener("click", () => setZoom(Number(button.dataset.zoom))));
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  byId("close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      PageUp: () => turn(-1), PageDown: () => turn(1), 0: () => setZoom(0), 1: () => setZoom(1), 2: () => setZoom(2),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  viewer.addEventListener("close", () => {
    large.show([null, null]);
    shown.element.scrollIntoView({ block: "nearest" });
    shown.pair.element.focus({ preventScroll: true });
    shown = null;
  });
  stage.addEventListener("scroll", () => large.move(large.share));
  addEventListener("resize", size);

  /* With a mouse a zoomed picture is dragged about; a finger scrolls it by itself. */
  large.element.addEventListener("pointerdown", (event) => {
    if (!large.isZoomed || event.target === large.handle || event.pointerType === "touch" || event.button) return;
    event.preventDefault();
    const pan = (moved) => stage.scrollBy(-moved.movementX, -moved.movementY);
    addEventListener("pointermove", pan);
    addEventListener("pointerup", () => removeEventListener("pointermove", pan), { once: true });
  });
})();
