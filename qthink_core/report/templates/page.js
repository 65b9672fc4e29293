"use strict";
(() => {
  const form = document.getElementById("filter");
  const questions = [...document.querySelectorAll("details.question")];
  const count = document.getElementById("filter-count");
  const apply = () => {
    const { task, system, verdict } = Object.fromEntries(new FormData(form));
    let shown = 0;
    for (const question of questions) {
      const verdicts = question.dataset.verdicts.split(" ");
      const matches = (one) =>
        (system === "" || one.startsWith(system + ":")) && (verdict === "" || one.endsWith(":" + verdict));
      question.hidden = (task !== "" && question.dataset.task !== task) || !verdicts.some(matches);
      shown += question.hidden ? 0 : 1;
      for (const answer of question.querySelectorAll(".answer")) {
        answer.hidden = system !== "" && answer.dataset.system !== system;
      }
    }
    for (const list of document.querySelectorAll(".question-list")) {
      list.hidden = list.querySelector("details.question:not([hidden])") === null;
    }
    count.textContent = `${shown} of ${questions.length} questions`;
  };
  form.addEventListener("change", apply);
  form.hidden = false;
  apply();
})();
