"use strict";
{
  // Sorting, filtering, the theme, the dialog and copying. Without this script the page is static.
  const MISSING = ["", "not measured"];
  const collator = new Intl.Collator("en", { numeric: true });
  const root = document.documentElement;
  const form = document.getElementById("filters");
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const tagsOf = (element) => JSON.parse(element.dataset.tags);

  // ---- sorting

  function keysOf(rows, column) {
    const cells = rows.map((row) => row.cells[column]);
    if (cells.some((cell) => "value" in cell.dataset)) {
      return cells.map((cell) => ("value" in cell.dataset ? Number(cell.dataset.value) : null));
    }
    const words = cells.map((cell) => cell.textContent.trim());
    return words.map((word) => (MISSING.includes(word) ? null : word));
  }

  function compare(one, other, sign) {
    if (one === null || other === null) return (one === null) - (other === null);
    if (typeof one === "string") return sign * collator.compare(one, other);
    return one === other ? 0 : sign * (one < other ? -1 : 1);
  }

  function put(body, rows) {
    const fragment = document.createDocumentFragment();
    for (const row of rows) fragment.append(row);
    body.append(fragment);
  }

  function sort(header) {
    const table = header.closest("table");
    const sign = header.ariaSort === "ascending" ? -1 : 1;
    for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows];
    const keys = keysOf(rows, header.cellIndex);
    const places = rows.map((_, place) => place);
    places.sort((one, other) => compare(keys[one], keys[other], sign));
    put(table.tBodies[0], places.map((place) => rows[place]));
  }

  const orders = new Map(all("table").map((table) => [table, [...table.tBodies[0].rows]]));

  function unsort() {
    for (const [table, rows] of orders) {
      const sorted = table.querySelector("[aria-sort]");
      if (!sorted) continue;
      sorted.removeAttribute("aria-sort");
      put(table.tBodies[0], rows);
    }
  }

  for (const header of all("thead th")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(header));
  }

  // ---- filtering

  const blocks = all(".block").map((element) => {
    const title = element.querySelector("h2").textContent;
    const items = all("tbody:not(.fixed) > tr, .one", element).map((item) => ({
      element: item,
      tags: tagsOf(item),
      words: [title, ...all("th, summary", item).map((cell) => cell.textContent)].join(" ").toLowerCase(),
      counted: item.matches(`#${CSS.escape(element.id)}-table tr`) && element.id !== "failures",
    }));
    const entry = document.querySelector(`nav [data-block="${CSS.escape(element.id)}"]`);
    return { element, entry, items, tags: tagsOf(element) };
  });
  const facets = all(".facet", form).map((element) => ({
    element,
    boxes: all("input", element),
    chosen: element.querySelector(".chosen"),
  }));
  const total = blocks.flatMap((block) => block.items).filter((item) => item.counted).length;

  function choice() {
    const chosen = new Map();
    for (const { boxes } of facets) {
      const values = boxes.filter((box) => box.checked).map((box) => box.value);
      if (values.length) chosen.set(boxes[0].name, values);
    }
    return chosen;
  }

  function fits(tags, chosen) {
    return [...chosen].every(([name, values]) => !(name in tags) || values.includes(tags[name]));
  }

  function filterBlock(block, chosen, words) {
    const open = fits(block.tags, chosen);
    let rows = 0;
    let any = false;
    for (const item of block.items) {
      const shown = open && fits(item.tags, chosen) && words.every((word) => item.words.includes(word));
      item.element.hidden = !shown;
      rows += shown && item.counted;
      any ||= shown;
    }
    const empty = (chosen.size || words.length) && !(block.items.some((item) => item.counted) ? rows : any);
    block.element.hidden = Boolean(empty);
    if (block.entry) block.entry.hidden = block.element.hidden;
    return rows;
  }

  function filter() {
    const chosen = choice();
    const words = form.elements.q.value.toLowerCase().split(/\s+/).filter(Boolean);
    const counts = blocks.map((block) => filterBlock(block, chosen, words));
    const rows = counts.reduce((sum, count) => sum + count, 0);
    const tables = counts.filter(Boolean).length;
    document.getElementById("shown").textContent =
      rows === total ? `${total} rows` : `${rows} of ${total} rows, ${tables} ${tables === 1 ? "table" : "tables"}`;
    document.getElementById("nothing").hidden = rows > 0 || total === 0;
    for (const { element, boxes, chosen: place } of facets) {
      const names = boxes.filter((box) => box.checked).map((box) => box.parentElement.textContent.trim());
      place.textContent = names.length ? `: ${names.join(", ")}` : "";
      element.classList.toggle("active", names.length > 0);
    }
    return { chosen, words };
  }

  // ---- the view in the address

  function remember({ chosen }) {
    const pairs = [...chosen].flatMap(([name, values]) => values.map((value) => [name, value]));
    if (form.elements.q.value) pairs.push(["q", form.elements.q.value]);
    const hash = new URLSearchParams(pairs).toString();
    try {
      history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
    } catch {
      // A page inside another may not change its address.
    }
  }

  function recall() {
    if (!location.hash.includes("=")) return;
    const asked = new URLSearchParams(location.hash.slice(1));
    for (const box of facets.flatMap((facet) => facet.boxes)) {
      box.checked = asked.getAll(box.name).includes(box.value);
    }
    form.elements.q.value = asked.get("q") ?? "";
    filter();
  }

  form.addEventListener("input", () => remember(filter()));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    setTimeout(() => {
      unsort();
      remember(filter());
    });
  });
  addEventListener("hashchange", recall);
  document.addEventListener("click", (event) => {
    for (const { element } of facets) if (!element.contains(event.target)) element.open = false;
  });
  form.addEventListener("keydown", (event) => {
    const open = event.target.closest(".facet[open]");
    if (event.key !== "Escape" || !open) return;
    open.open = false;
    open.querySelector("summary").focus();
  });

  // ---- theme

  const themes = ["auto", "light", "dark"];
  const toggle = document.getElementById("theme");
  toggle.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme ?? "auto") + 1) % themes.length];
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    toggle.textContent = `Theme: ${next}`;
  });

  // ---- how a row was made

  async function write(text, from) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      getSelection().selectAllChildren(from);
      return document.execCommand("copy");
    }
  }

  for (const command of all(".command")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy command";
    command.after(button);
  }
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.(".copy");
    if (!button) return;
    const command = button.previousElementSibling;
    const done = await write(command.textContent, command);
    button.textContent = done ? "Copied" : "Selected: press Ctrl+C";
    setTimeout(() => (button.textContent = "Copy command"), 2000);
  });

  const dialog = document.getElementById("how");
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a.how");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const made = document.getElementById(decodeURIComponent(link.hash.slice(1)));
    const set = tagsOf(link.closest(".block")).dataset;
    dialog.querySelector("h2").textContent = `${link.textContent} on ${set}`;
    dialog.querySelector("div").replaceChildren(...made.cloneNode(true).childNodes);
    dialog.showModal();
  });
  dialog.querySelector(":scope > button").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

  // ---- charts that are wider than the screen are scrolled by keys, too

  function reach() {
    for (const chart of all(".chart")) {
      if (chart.scrollWidth > chart.clientWidth) chart.tabIndex = 0;
      else chart.removeAttribute("tabindex");
    }
  }

  addEventListener("resize", reach);
  reach();
  form.hidden = false;
  toggle.hidden = false;
  filter();
  recall();
}
