const $ = (id) => document.getElementById(id);
const EXAMPLE = [{ type: "function", function: { name: "get_weather", description: "Get the weather in a city.",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } } }];
let messages = [];
let model = null;
let running = null;

// Text only ever becomes text nodes: nothing that a model or a person writes is read as HTML.
function element(parent, tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

function fail(text) {
  $("status").textContent = text;
  $("status").hidden = !text;
}

function headers() {
  const key = $("key").value.trim();
  return { "Content-Type": "application/json", ...(key && { Authorization: "Bearer " + key }) };
}

function article(who, className) {
  const made = element($("log"), "article", className);
  made.setAttribute("aria-label", who);
  element(made, "h2", "", who);
  return made;
}

// Keeps the end of the page in sight. Once a frame: asking where the end is makes the browser lay the page out.
let staying = true;
let lastTop = 0;
let following = false;
document.addEventListener("scroll", () => {
  const page = document.scrollingElement;
  staying = stays(staying, lastTop, page.scrollTop, page.scrollHeight - page.scrollTop - page.clientHeight);
  lastTop = page.scrollTop;
}, { passive: true });
function follow() {
  if (following) return;
  following = true;
  requestAnimationFrame(() => {
    following = false;
    const page = document.scrollingElement;
    if (staying) page.scrollTop = page.scrollHeight;
  });
}

// More text in a place, as one text node.
function write(place, text) {
  if (place.lastChild) place.lastChild.appendData(text);
  else place.append(text);
}

// Whether the settings can be sent; shows the first that can't.
function valid() {
  const wrong = [$("temperature"), $("max-tokens")].find((field) => !field.checkValidity());
  try {
    if (!wrong) toolsOf($("tools").value);
  } catch (error) {
    $("settings").open = true;
    $("tools").focus();
    fail(error.message);
    return false;
  }
  if (!wrong) return true;
  $("settings").open = true;
  wrong.reportValidity();
  return false;
}

async function errorOf(response) {
  const text = await response.text();
  try { return JSON.parse(text).error.message; } catch { return response.status + " " + text.slice(0, 300); }
}

async function loadModel() {
  try {
    const response = await fetch("v1/models", { headers: headers() });
    if (!response.ok) throw new Error(await errorOf(response));
    const [first] = (await response.json()).data;
    if (model === null) $("thinking").checked = first.thinking;
    model = first.id;
    $("model").textContent = document.title = first.id;
    fail("");
  } catch (error) {
    fail("The model can't be reached: " + error.message);
  }
}

function request() {
  const system = $("system").value.trim();
  const body = {
    model, stream: true, stream_options: { include_usage: true },
    messages: system ? [{ role: "system", content: system }, ...messages] : messages,
    thinking: { type: $("thinking").checked ? "enabled" : "disabled" },
  };
  if ($("temperature").value !== "") body.temperature = Number($("temperature").value);
  if ($("max-tokens").value !== "") body.max_tokens = Number($("max-tokens").value);
  const tools = toolsOf($("tools").value);
  if (tools) body.tools = tools;
  return body;
}

// The data of server-sent events.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const { data, rest } = dataOf(text + value);
    text = rest;
    yield* data;
  }
}

// Draws an answer as it comes and keeps it as a message.
class Answer {
  constructor() {
    this.message = { role: "assistant", content: "" };
    this.article = article("Assistant", "assistant");
    this.began = performance.now();
    this.first = null;
    this.pieces = 0;
  }
  reasoning(text) {
    if (!this.thoughts) {
      this.details = element(this.article, "details");
      this.details.open = true;
      element(this.details, "summary", "", "Reasoning");
      this.thoughts = element(this.details, "div", "reasoning");
      this.message.reasoning_content = "";
    }
    this.message.reasoning_content += text;
    write(this.thoughts, text);
  }
  content(text) {
    if (this.details && !this.text) this.details.open = false;
    this.text ??= element(this.article, "div", "text");
    this.message.content += text;
    write(this.text, text);
  }
  call(piece) {
    const calls = this.message.tool_calls ??= [];
    this.drawn ??= [];
    if (!calls[piece.index]) {
      calls[piece.index] = { id: piece.id, type: "function", function: { name: piece.function.name, arguments: "" } };
      const box = element(this.article, "section", "call");
      box.setAttribute("aria-label", "Tool call");
      element(box, "h2", "", "Calls " + piece.function.name);
      this.drawn[piece.index] = { box, text: element(box, "pre") };
    }
    calls[piece.index].function.arguments += piece.function.arguments ?? "";
    write(this.drawn[piece.index].text, piece.function.arguments ?? "");
  }
  take(chunk) {
    if (chunk.error) throw new Error(chunk.error.message);
    if (chunk.usage) this.usage = chunk.usage;
    for (const choice of chunk.choices) {
      const { reasoning_content, content, tool_calls } = choice.delta;
      if (reasoning_content || content || tool_calls) {
        this.first ??= performance.now();
        this.last = performance.now();
        this.pieces += 1;
      }
      if (reasoning_content) this.reasoning(reasoning_content);
      if (content) this.content(content);
      for (const piece of tool_calls ?? []) this.call(piece);
      if (choice.finish_reason) this.reason = choice.finish_reason;
      this.lost = lostOf(choice.tool_call_error, choice.dropped, this.message.content) ?? this.lost;
    }
    follow();
  }
  finish(stopped, failed) {
    if (stopped || this.reason !== "tool_calls") {
      if (this.message.tool_calls) element(this.article, "p", "hint", "The call was not finished and is not made.");
      delete this.message.tool_calls;
    }
    if (this.lost) {
      element(this.article, "p", "error", this.lost.why);
      if (this.lost.text) element(this.article, "pre", "", this.lost.text);
    }
    element(this.article, "p", "speed", notesOf({
      tokens: this.usage?.completion_tokens ?? this.pieces, pieces: this.pieces,
      began: this.began, first: this.first, last: this.last, ended: performance.now(),
      thought: this.usage?.completion_tokens_details?.reasoning_tokens, prompt: this.usage?.prompt_tokens,
      reason: this.reason, stopped: stopped && !failed,
    }));
    follow();
  }
  // A place for the results of its calls; the conversation goes on when all are given.
  ask() {
    const calls = this.message.tool_calls ?? [];
    if (!calls.length) return false;
    const fields = calls.map((call, index) => {
      const label = element(this.drawn[index].box, "label", "block", "Result of " + call.function.name);
      const field = element(label, "textarea");
      field.rows = 1;
      return field;
    });
    const give = element(this.article, "button", "main", "Give the results");
    give.type = "button";
    give.addEventListener("click", () => {
      if (running || !valid()) return;
      give.remove();
      fields.forEach((field, index) => {
        field.readOnly = true;
        messages.push({ role: "tool", tool_call_id: calls[index].id, content: field.value });
      });
      answer();
    });
    fields[0].focus();
    return true;
  }
  open() { return this.article.querySelector("button") !== null; }
}

let latest = null;

async function answer() {
  fail("");
  const body = request();
  running = new AbortController();
  const conversation = messages;
  $("stop").disabled = false;
  $("send").disabled = true;
  $("log").setAttribute("aria-busy", "true");
  const drawn = latest = new Answer();
  let stopped = false;
  let failed = false;
  let asked = false;
  try {
    const response = await fetch("v1/chat/completions",
      { method: "POST", headers: headers(), body: JSON.stringify(body), signal: running.signal });
    if (!response.ok) throw new Error(await errorOf(response));
    for await (const data of events(response)) {
      if (data === "[DONE]") break;
      drawn.take(JSON.parse(data));
    }
    if (!drawn.reason) throw new Error("The answer broke off.");
  } catch (error) {
    stopped = true;
    if (error.name !== "AbortError") {
      failed = true;
      element(drawn.article, "p", "error", error.message);
      // What got no answer can be sent again.
      if (!drawn.first && messages.at(-1)?.role === "user") $("input").value ||= messages.at(-1).content;
    }
  } finally {
    running = null;
    $("stop").disabled = true;
    $("send").disabled = false;
    $("log").setAttribute("aria-busy", "false");
  }
  if (conversation !== messages) return;
  // An error is told once, and where nothing came there is nothing to count.
  if (drawn.first !== null || !failed) drawn.finish(stopped, failed);
  follow();
  if (!stopped || drawn.message.content) {
    messages.push(drawn.message);
    asked = drawn.ask();
  }
  if (!asked) $("input").focus();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("input").value;
  if (running || !text.trim() || !valid()) return;
  if (latest?.open()) { fail("The calls wait for their results."); return; }
  $("input").value = "";
  // A message that got no answer is taken back.
  if (messages.at(-1)?.role === "user") messages.pop();
  messages.push({ role: "user", content: text });
  element(article("You", "user"), "div", "text", text);
  staying = true;
  follow();
  answer();
});
$("input").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("form").requestSubmit();
  }
});
$("stop").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => { if (event.key === "Escape") running?.abort(); });
$("clear").addEventListener("click", () => {
  running?.abort();
  messages = [];
  latest = null;
  $("log").replaceChildren();
  fail("");
  $("input").focus();
});
$("example").addEventListener("click", () => { $("tools").value = JSON.stringify(EXAMPLE, null, 1); });
$("key").addEventListener("change", loadModel);
loadModel();
