"use strict";
// What the page decides, apart from how it is drawn: functions of their arguments alone.

// Whether the page stays at its end when more is added. It lets go where somebody scrolls up, and takes hold again near
// the end: what was added since it was last drawn says nothing, however tall it is. `rest` is what lies below the view.
function stays(stayed, before, now, rest) {
  return rest < 160 || (stayed && now >= before);
}

// The tools of a text, or undefined if it is blank. Throws what is wrong with it.
function toolsOf(text) {
  if (!text.trim()) return undefined;
  let tools;
  try { tools = JSON.parse(text); } catch (error) { throw new Error("The tools are not JSON: " + error.message); }
  if (!Array.isArray(tools)) throw new Error("The tools are not a JSON list.");
  return tools;
}

// Tokens in a second of an answer that came in `pieces` between two times in milliseconds; null where the times do not
// tell: a call or a short answer may come in one piece long after its tokens were written.
function speedOf(tokens, pieces, first, last) {
  const seconds = (last - first) / 1000;
  if (pieces < 2 || tokens > 2 * pieces + 2 || seconds <= 0) return null;
  return (pieces - 1) / seconds * (tokens / pieces);
}

// What is told of an answer at its end. Times are in milliseconds.
function notesOf({ tokens, pieces, began, first, last, ended, thought, prompt, reason, stopped }) {
  const notes = [];
  const speed = first === null ? null : speedOf(tokens, pieces, first, last);
  if (speed !== null) notes.push(`first token ${Math.round(first - began)} ms`, `${speed.toFixed(1)} tokens/s`);
  notes.push(speed === null ? `${tokens} tokens in ${((ended - began) / 1000).toFixed(1)} s` : `${tokens} tokens`);
  if (thought) notes.push(`${thought} of them reasoning`);
  if (prompt) notes.push(`prompt ${prompt}`);
  if (stopped) notes.push("stopped");
  else if (reason === "length") notes.push("cut off: no more tokens were allowed");
  return notes.join(" · ");
}

// What is told of a call that could not be read: why, and the text that is not in the answer's content. Null if there is
// nothing to tell.
function lostOf(error, dropped, content) {
  const texts = (dropped ?? []).filter((text) => !content.includes(text));
  if (!error && !texts.length) return null;
  return { why: error ? "A call could not be read: " + error + "." : "Left out of the answer:", text: texts.join("\n") };
}

// The data of server-sent events in a text, and the text that is no whole line yet. Comments and other fields are
// passed over.
function dataOf(text) {
  const lines = text.split("\n");
  const rest = lines.pop();
  return { data: lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()), rest };
}
