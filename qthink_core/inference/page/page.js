"use strict";
// Everything that a model or the server says goes into the page as text, never as markup.
(() => {
  const at = (id) => document.getElementById(id);
  const form = at("ask");
  const question = at("question");
  const views = new Map(); // of each way, by its key
  let running = null; // the AbortController of the question that is being answered

  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  const fail = (message) => {
    at("error").textContent = message;
    at("error").hidden = message === "";
  };

  // fetch raises a TypeError where it gets no answer, as does a fault in this script: the log tells them apart
  const lost = (error) => {
    console.error(error);
    fail("the server does not answer: is qthink demo still running?");
  };

  /** The answer and the row of one way. */
  const view = (way, number) => {
    const article = make("article", "answer");
    const heading = make(number === 0 ? "h2" : "h3", "", way.name);
    const steps = make("ol", "steps");
    const text = make("pre", "text");
    const failed = make("p", "failed");
    heading.id = `way-${way.key}`;
    article.dataset.way = way.key;
    steps.setAttribute("aria-label", "What each latent step reads as: likeliest tokens by the output head");
    text.setAttribute("aria-labelledby", heading.id);
    text.tabIndex = 0;
    const [thought, answer] = [make("span", "thought"), make("span", "")];
    text.append(thought, answer);
    article.append(heading, make("p", "about", way.about));
    if (number === 0) article.append(steps);
    article.append(text, failed);
    const row = make("tr", "");
    const name = make("th", "", way.name);
    name.scope = "row";
    const cells = [0, 1, 2].map(() => make("td", "number"));
    row.append(name, ...cells);
    let said = "";

    const add = (piece) => {
      const below = text.scrollHeight - text.scrollTop - text.clientHeight < 40;
      said += piece;
      const end = said.indexOf("</think>");
      const thinks = said.trimStart().startsWith("<think>");
      const cut = end >= 0 ? end + "</think>".length : thinks ? said.length : 0;
      thought.textContent = said.slice(0, cut);
      answer.textContent = said.slice(cut);
      if (below) text.scrollTop = text.scrollHeight;
    };
    const clear = () => {
      said = "";
      for (const one of [thought, answer, failed, ...cells]) one.textContent = "";
      steps.replaceChildren();
      failed.hidden = true;
      text.hidden = false;
    };
    const read = (readout) => {
      steps.replaceChildren(
        ...readout.map((likely, k) => {
          const item = make("li", "");
          const tokens = make("span", "tokens");
          for (const [token, probability] of likely) {
            const box = make("span", "token");
            const share = 100 * probability;
            box.style.setProperty("--p", probability);
            box.title = token;
            box.append(make("code", "", token), " ", make("span", "share", `${share >= 1 || share === 0 ? share.toFixed(0) : "<1"} %`));
            tokens.append(box);
          }
          item.append(make("span", "step", `Step ${k + 1}`), " ", tokens);
          return item;
        }),
      );
    };
    const done = ({ tokens, latent_steps: latent, seconds, cut }) => {
      [latent, tokens, seconds.toFixed(2)].forEach((value, i) => (cells[i].textContent = value));
      if (cut) cells[1].textContent += " (cut)";
    };
    const error = (message) => {
      failed.textContent = message;
      failed.hidden = false;
      text.hidden = said === "";
    };
    return { way, article, row, add, clear, read, done, error };
  };

  const chosen = () => ["latent", ...[...form.querySelectorAll("input:checked")].map((box) => box.value)];

  /** Shows one event of the server; returns the way that the next events are about. */
  const show = (event, current) => {
    if ("ahead" in event) {
      const others = event.ahead === 1 ? "another question" : `${event.ahead} other questions`;
      at("status").textContent = `Waiting for ${others} …`;
    } else if ("way" in event) {
      const next = views.get(event.way);
      at("status").textContent = `Answering: ${next.way.name} …`;
      return next;
    } else if ("readout" in event) current.read(event.readout);
    else if ("piece" in event) current.add(event.piece);
    else if ("done" in event) current.done(event.done);
    else if ("error" in event) current.error(event.error);
    return current;
  };

  /** The JSON lines of a response, one by one, as they come. */
  async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) yield JSON.parse(line);
    }
  }

  /** A promise that is rejected when a signal aborts. */
  const abortOf = (signal) =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));

  const ask = async (signal) => {
    // without it there are no boxes, and all ways but the first would be left out; what failed is tried again
    await Promise.race([(started = started.catch(start)), abortOf(signal)]);
    const ways = chosen();
    const body = JSON.stringify({ question: question.value, ways });
    const response = await fetch("/ask", { method: "POST", headers: { "Content-Type": "application/json" }, body, signal });
    if (!response.ok) throw new Error((await response.json()).error);
    for (const [key, one] of views) {
      one.clear();
      one.article.hidden = one.row.hidden = !ways.includes(key);
    }
    at("results").hidden = false;
    let current = null;
    for await (const event of events(response)) {
      if ("end" in event) return;
      current = show(event, current);
    }
    throw new Error("the server stopped before the answer was complete: start qthink demo again");
  };

  const submit = async () => {
    if (running) return;
    running = new AbortController();
    fail("");
    at("submit").disabled = true;
    at("stop").hidden = false;
    at("status").textContent = "Asking …";
    try {
      await ask(running.signal);
      at("status").textContent = "Done.";
    } catch (error) {
      const stopped = running.signal.aborted;
      at("status").textContent = stopped ? "Stopped." : "";
      if (!stopped && error instanceof TypeError) lost(error);
      else if (!stopped) fail(error.message);
    } finally {
      running = null;
      at("submit").disabled = false;
      at("stop").hidden = true;
    }
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit();
    }
  });
  at("stop").addEventListener("click", () => running?.abort());

  const start = async () => {
    const response = await fetch("/about");
    if (!response.ok) throw new Error(`the server answered ${response.status}: start qthink demo again`);
    const about = await response.json();
    at("model").textContent = about.model;
    document.title = `QThink: ${about.model}`;
    about.ways.forEach((way, number) => {
      const one = view(way, number);
      views.set(way.key, one);
      at(number === 0 ? "first" : "others").append(one.article);
      at("rows").append(one.row);
      if (number === 0) return;
      const label = make("label", "");
      const box = make("input", "");
      Object.assign(box, { type: "checkbox", value: way.key, checked: true });
      label.append(box, way.name);
      at("choices").append(label);
    });
  };
  let started = start();
  started.catch(lost);
})();
