"""Makes inputs.json and cases.jsonl: conversations, and what Python's jinja2 makes of the templates beside it, in the environment that Hugging Face's
`apply_chat_template` sets up. Run with jinja2 3.1: `python make.py`.
"""

import copy
import datetime
import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = 1_764_398_096
HERE = pathlib.Path(__file__).parent


class Generation(jinja2.ext.Extension):
    """`{% generation %}`: its body, as it is."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def strftime_now(format):
    return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(format)


ENVIRONMENT = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
)
ENVIRONMENT.filters["tojson"] = tojson
ENVIRONMENT.globals["raise_exception"] = raise_exception
ENVIRONMENT.globals["strftime_now"] = strftime_now


def as_seen(messages, kimi_ids):
    """Arguments as objects, results with the id and the name of their call."""
    messages, calls, count = [copy.deepcopy(message) for message in messages], [], 0
    for message in messages:
        if message["role"] == "tool":
            call = calls.pop(0)
            message["name"], message["tool_call_id"] = call["function"]["name"], call["id"]
        elif "tool_calls" in message:
            for call in message["tool_calls"]:
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
                if kimi_ids:
                    call["id"] = f"functions.{call['function']['name']}:{count}"
                count += 1
            calls = list(message["tool_calls"])
    return messages


def call(id, name, arguments):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "Weather in a city – now",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "zeit", "description": "", "parameters": {"type": "object", "properties": {}}, "strict": False}},
]
SYSTEM = {"role": "system", "content": " You are terse. "}
USER = {"role": "user", "content": "Wie ist das Wetter in Köln und 北京?"}
CALLS = {"role": "assistant", "content": "I look.\n", "reasoning_content": "Two cities.\n", "tool_calls": [
    call("a", "get_weather", '{"city": "Köln", "days": 2, "more": {"x": [1.50, 1e5, null, true]}}'),
    call("b", "zeit", "{}"),
]}
RESULTS = [{"role": "tool", "tool_call_id": "a", "content": "{\"sun\": 0.5}"}, {"role": "tool", "tool_call_id": "b", "content": "12:00\n"}]
ANSWER = {"role": "assistant", "content": "Half of it.", "reasoning_content": "Easy."}
AGAIN = {"role": "user", "content": "a and\nb?"}
INLINE = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."}
CONVERSATIONS = {
    "one": [USER],
    "system": [SYSTEM, USER],
    "turns": [SYSTEM, USER, ANSWER, AGAIN],
    "inline": [USER, INLINE, AGAIN, INLINE],
    "calls": [USER, CALLS, *RESULTS],
    "answered": [SYSTEM, USER, CALLS, *RESULTS, ANSWER, AGAIN, {**CALLS, "content": "", "reasoning_content": "Again."}, *RESULTS],
}


def main():
    inputs = {"now": NOW, "tools": TOOLS, "conversations": CONVERSATIONS}
    (HERE / "inputs.json").write_text(json.dumps(inputs, ensure_ascii=False, indent=1) + "\n")
    with open(HERE / "cases.jsonl", "w") as out:
        for path in sorted(HERE.glob("*.jinja")):
            template = ENVIRONMENT.from_string(path.read_text())
            for name, messages in CONVERSATIONS.items():
                for tools, thinking, opener in [([], False, True), (TOOLS, True, True), (TOOLS, False, False)]:
                    kimi_ids = path.stem.startswith("kimi")
                    text = template.render(
                        messages=as_seen(messages, kimi_ids), tools=tools or None, documents=None, add_generation_prompt=opener,
                        enable_thinking=thinking, thinking=thinking, bos_token="<s>",
                    )
                    case = {"template": path.name, "conversation": name, "tools": bool(tools), "thinking": thinking,
                            "add_generation_prompt": opener, "kimi_ids": kimi_ids, "text": text}
                    print(json.dumps(case, ensure_ascii=False), file=out)


main()
