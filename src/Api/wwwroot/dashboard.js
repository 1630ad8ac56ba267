"use strict";

// Lists the newest jobs, and follows the story of the chosen one as server-sent events. The events are read with fetch, because
// EventSource cannot carry a key.

const table = document.querySelector("#jobs");
const message = document.querySelector("#message");
const story = document.querySelector("#story");
const keyForm = document.querySelector("#key");
const ended = ["succeeded", "failed", "cancelled"];
let following = null;

function headers() {
  const key = sessionStorage.getItem("key");
  return key ? { Authorization: `Bearer ${key}` } : {};
}

keyForm.addEventListener("submit", event => {
  event.preventDefault();
  sessionStorage.setItem("key", new FormData(keyForm).get("key"));
  refresh();
});

function element(name, text, className) {
  const node = document.createElement(name);
  node.textContent = text;
  if (className) {
    node.className = className;
  }
  return node;
}

function row(job) {
  const line = document.createElement("tr");
  const open = element("button", job.id.slice(0, 18) + "…");
  open.title = job.id;
  open.addEventListener("click", () => follow(job));
  line.append(document.createElement("td"));
  line.firstChild.append(open);
  line.append(element("td", job.model));
  line.append(element("td", `${job.spec.objective.type} / ${job.spec.adapter.type}`));
  const waiting = job.queue_position ? ` (${job.queue_position}. in the queue)` : "";
  const share = job.progress.phase_percent == null ? "" : ` ${job.progress.phase_percent.toFixed(0)} %`;
  const status = element("td", (job.phase ?? job.status) + share + waiting, job.status);
  status.title = job.error?.message ?? "";
  line.append(status);
  const progress = document.createElement("td");
  const bar = document.createElement("progress");
  bar.max = 100;
  bar.value = job.progress.percent ?? 0;
  progress.append(bar, ` ${job.progress.step}/${job.progress.total_steps ?? "?"}`);
  progress.title = resources(job);
  line.append(progress);
  line.append(element("td", job.progress.train_loss?.toFixed(4) ?? ""));
  line.append(element("td", new Date(job.created_at * 1000).toLocaleString()));
  return line;
}

// What a job should take and what it took, in one line; empty before its rows are read.
function resources(job) {
  const { estimate, actual } = job.resources;
  const figures = cost => [
    `${(cost.memory_bytes / 2 ** 20).toFixed(0)} MiB of memory`,
    cost.seconds_per_step && `${cost.seconds_per_step.toPrecision(3)} s per step`,
    cost.seconds && `${cost.seconds.toFixed(0)} s in all`,
    `${(cost.artifact_bytes / 2 ** 20).toFixed(1)} MiB saved`,
  ].filter(Boolean).join(", ");
  return [estimate && `Estimated: ${figures(estimate)}.`, actual && `Taken: ${figures(actual)}.`].filter(Boolean).join(" ");
}

async function refresh() {
  let delay = 5000;
  try {
    const answer = await fetch("/v1/jobs?limit=50", { headers: headers() });
    keyForm.hidden = answer.status !== 401;
    if (answer.ok) {
      const jobs = (await answer.json()).data;
      table.querySelector("tbody").replaceChildren(...jobs.map(row));
      table.hidden = jobs.length === 0;
      message.textContent = jobs.length === 0 ? "No jobs yet. Post one to /v1/jobs, or try it out in the API page." : "";
      delay = jobs.some(job => !ended.includes(job.status)) ? 1000 : 5000;
    } else {
      message.textContent = (await answer.json()).error.message;
    }
  } catch (error) {
    message.textContent = `The service does not answer: ${error.message}`;
  }
  clearTimeout(refresh.timer);
  refresh.timer = setTimeout(refresh, delay);
}

async function follow(job) {
  const id = job.id;
  following?.abort();
  following = new AbortController();
  story.hidden = false;
  story.querySelector("h2").textContent = id;
  story.querySelector("p").textContent = resources(job);
  const lines = story.querySelector("ol");
  lines.replaceChildren();
  try {
    const answer = await fetch(`/v1/jobs/${id}/events?stream=true`, { headers: headers(), signal: following.signal });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const blocks = (rest + part.value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").find(line => line.startsWith("data: "));
        const entry = data && JSON.parse(data.slice(6));
        if (entry?.message) {
          const time = new Date(entry.created_at * 1000).toLocaleTimeString();
          lines.append(element("li", `${time}  ${entry.message}`, entry.level === "error" ? "failed" : ""));
          lines.scrollTop = lines.scrollHeight;
        }
      }
    }
  } catch (error) {
    if (error.name !== "AbortError") {
      message.textContent = `The story of ${id} broke off: ${error.message}`;
    }
  }
}

refresh();
