// One side of Compare: its newest words stay in sight unless somebody has scrolled up; a button copies what was said, to the byte.
// Gradio runs this file as the body of a function, once per component (see charts.js).

const NEAR = 40;             // pixels from the end that still count as being there
const TOLD_FOR = 1500;       // milliseconds

let at = Infinity;           // how far down somebody has scrolled; without end for whoever follows

element.addEventListener("scroll", ({ target }) => {
  if (target.matches(".talk")) at = target.scrollTop + target.clientHeight > target.scrollHeight - NEAR ? Infinity : target.scrollTop;
}, true);

watch("value", () => {
  const talk = element.querySelector(".talk");
  if (talk) talk.scrollTop = Math.min(at, talk.scrollHeight);
});

async function copy(said) {
  try {
    await navigator.clipboard.writeText(said.textContent);
  } catch {                  // not allowed, or plain HTTP: what is selected can be copied all the same
    getSelection().selectAllChildren(said);
    document.execCommand("copy");
  }
}

element.addEventListener("click", async ({ target }) => {
  const button = target.closest(".copy");
  if (!button) return;
  await copy(button.parentElement.querySelector("p"));
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, TOLD_FOR);
});
