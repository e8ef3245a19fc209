// Beside a button: what is wrong with the form. Leads to the first field when the button has been pressed, and to any by its link.
//
// Gradio runs this file as the body of a function and hands in `element`, the component's node, and `watch`.

const PATIENCE = 5000;  // milliseconds until a tab or a folded part is there
let pressed = "";

function unfold(tab, fold) {
  const front = document.querySelector(`[role=tab][data-tab-id="${tab}"]`);
  if (front && front.ariaSelected !== "true") front.click();
  const head = fold && document.querySelector(`#${fold} button.label-wrap`);
  if (head && !head.classList.contains("open")) head.click();
}

function lead(link, since = performance.now()) {
  const { field, tab, fold } = link.dataset;
  const box = document.getElementById(field);
  const input = box?.querySelector("input, textarea, button");
  if (box?.offsetParent) {
    box.scrollIntoView({ block: "center" });
    input?.focus({ preventScroll: true });
  } else unfold(tab, fold);  // in another tab, or folded up
  // What opens just now may not take the focus yet.
  if (document.activeElement !== input && performance.now() - since < PATIENCE) setTimeout(() => lead(link, since), 100);
}

// The input itself says that it is wrong, for those who do not see the colour.
function mark() {
  for (const input of document.querySelectorAll("[id^=field-] input, [id^=field-] textarea, [id^=push-] input, [id^=push-] textarea")) {
    if (input.closest(".wrong")) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  }
}

function follow() {
  mark();
  const told = element.querySelector("[data-press]");
  if (!told || told.dataset.press === pressed) return;
  pressed = told.dataset.press;
  const links = [...told.querySelectorAll("a[data-field]")];
  // Whoever pressed the button stays where they are: of another tab the list speaks.
  const here = links.find((link) => document.querySelector(`[role=tab][data-tab-id="${link.dataset.tab}"]`)?.ariaSelected === "true");
  if (here) lead(here);
  else told.scrollIntoView({ block: "center" });
}

watch("value", () => setTimeout(follow, 100));
element.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-field]");
  if (!link) return;
  event.preventDefault();
  lead(link);
});
