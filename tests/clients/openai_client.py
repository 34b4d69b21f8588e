"""The official OpenAI client talks to the server.

    python tests/clients/openai_client.py http://127.0.0.1:8000

The server runs the embedded checkpoint, which knows how to call tools and nothing else: the conversations below are of
the kind it was trained on, and every answer is asserted.
"""

import json
import sys
import time
import urllib.request

import openai


def tool(name, description, *parameters):
    schema = {
        "type": "object",
        "properties": {parameter: {"type": "string"} for parameter in parameters},
        "required": list(parameters),
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


ORDERS = [tool("lookup_parcel", "Get the status of an order by its code.", "order")]
GEOGRAPHY = [
    tool("query_government", "Find out the capital of a country.", "nation"),
    tool("get_weather", "Get the weather in a city.", "city"),
]
THINK = {"thinking": {"type": "enabled"}}


def check(found, wanted, what=""):
    assert found == wanted, f"{what}\n found {found!r}\nwanted {wanted!r}"


def calls_of(message):
    return [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or []]


def gather(stream):
    """A stream's content, reasoning, calls, ends and last counts."""
    content, reasoning, calls, ends, usage = "", "", [], [], None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            content += choice.delta.content or ""
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            for piece in choice.delta.tool_calls or []:
                if piece.id:
                    check(piece.index, len(calls))
                    calls.append({"id": piece.id, "name": piece.function.name, "arguments": ""})
                calls[piece.index]["arguments"] += piece.function.arguments or ""
            if choice.finish_reason:
                ends.append(choice.finish_reason)
    return content, reasoning, calls, ends, usage


def plain(client, model):
    messages = [
        {"role": "system", "content": "You are Xavier."},
        {"role": "user", "content": "Where is my order AK748?"},
    ]
    first = client.chat.completions.create(model=model, messages=messages, tools=ORDERS)
    check(first.choices[0].finish_reason, "tool_calls")
    check(calls_of(first.choices[0].message), [("lookup_parcel", {"order": "AK748"})])
    check(first.choices[0].message.content, None)
    messages.append(first.choices[0].message)
    messages.append({"role": "tool", "tool_call_id": first.choices[0].message.tool_calls[0].id, "content": "ready"})
    second = client.chat.completions.create(model=model, messages=messages, tools=ORDERS)
    check(second.choices[0].message.content, "The status of order AK748 is ready.")
    check((second.choices[0].finish_reason, second.object, second.model), ("stop", "chat.completion", model))
    usage = second.usage
    check(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
    assert usage.prompt_tokens_details.cached_tokens >= 64, usage
    return messages, second


def streaming(client, model):
    messages, whole = plain(client, model)
    stream = client.chat.completions.create(
        model=model, messages=messages, tools=ORDERS, stream=True, stream_options={"include_usage": True}
    )
    content, reasoning, calls, ends, usage = gather(stream)
    check((content, reasoning, calls, ends), (whole.choices[0].message.content, "", [], ["stop"]))
    check(usage.completion_tokens, whole.usage.completion_tokens)
    two = client.chat.completions.create(model=model, messages=messages, tools=ORDERS, n=2, logprobs=True, top_logprobs=2)
    check([choice.message.content for choice in two.choices], [content, content])
    tokens = two.choices[1].logprobs.content
    check("".join(token.token for token in tokens), content)
    check([len(token.top_logprobs) for token in tokens], [2] * len(tokens))
    stopped = client.chat.completions.create(model=model, messages=messages, tools=ORDERS, stop=["order"])
    check((stopped.choices[0].message.content, stopped.choices[0].finish_reason), ("The status of ", "stop"))
    short = client.chat.completions.create(model=model, messages=messages, tools=ORDERS, max_completion_tokens=2)
    check((short.choices[0].finish_reason, short.usage.completion_tokens), ("length", 2))


def tools(client, model):
    """Two steps, the second from the first's result, with reasoning that goes back and forth."""
    messages = [
        {"role": "system", "content": ""},
        {"role": "user", "content": "One question: How is the weather in the capital of Austria?"},
    ]
    results = {"query_government": "Kodatom", "get_weather": '{"weather": "15 degrees and humid"}'}
    transcript = []
    for _ in range(3):
        stream = client.chat.completions.create(
            model=model, messages=messages, tools=GEOGRAPHY, stream=True, extra_body=THINK
        )
        content, reasoning, calls, ends, _usage = gather(stream)
        transcript.append((reasoning, content, [(call["name"], json.loads(call["arguments"])) for call in calls], ends))
        made = [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
            for call in calls
        ]
        if not made:
            break
        messages.append(
            {"role": "assistant", "content": content, "reasoning_content": reasoning, "tool_calls": made}
        )
        for call in calls:
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": results[call["name"]]})
    check(transcript, [
        ("First I need the capital of Austria, so I call query_government.", "",
         [("query_government", {"nation": "Austria"})], ["tool_calls"]),
        ("Now I need the weather in Kodatom, so I call get_weather.", "",
         [("get_weather", {"city": "Kodatom"})], ["tool_calls"]),
        ("I have both results, so I can answer.",
         "The capital of Austria is Kodatom, and the weather there is 15 degrees and humid.", [], ["stop"]),
    ])
    # A client that drops reasoning on the way is answered all the same.
    for message in messages:
        message.pop("reasoning_content", None)
    answer = client.chat.completions.create(model=model, messages=messages, tools=GEOGRAPHY, extra_body=THINK)
    check(answer.choices[0].finish_reason, "stop")
    assert "Kodatom" in answer.choices[0].message.content, answer


def parallel_tools(client, model):
    messages = [
        {"role": "system", "content": "You are Xavier."},
        {"role": "user", "content": "What is the status of order BD029? What is the status of order CN950?"},
    ]
    answer = client.chat.completions.create(model=model, messages=messages, tools=ORDERS)
    message = answer.choices[0].message
    wanted = [("lookup_parcel", {"order": "BD029"}), ("lookup_parcel", {"order": "CN950"})]
    check(calls_of(message), wanted)
    stream = client.chat.completions.create(model=model, messages=messages, tools=ORDERS, stream=True)
    _, _, calls, ends, _ = gather(stream)
    check([(call["name"], json.loads(call["arguments"])) for call in calls], wanted)
    check(ends, ["tool_calls"])
    check(len({call["id"] for call in calls} | {call.id for call in message.tool_calls}), 4)
    messages.append(message)
    # The results come in the other order.
    for call, result in reversed(list(zip(message.tool_calls, ["packed", "shipped"]))):
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    answer = client.chat.completions.create(model=model, messages=messages, tools=ORDERS)
    check(answer.choices[0].message.content, "The status of order BD029 is packed. The status of order CN950 is shipped.")
    single = client.chat.completions.create(
        model=model, messages=messages[:2], tools=ORDERS, parallel_tool_calls=False
    )
    check((calls_of(single.choices[0].message), single.choices[0].finish_reason), (wanted[:1], "tool_calls"))


def constrained(client, model):
    """Forms that a grammar holds the model to, whether it was trained for them or not."""
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "warm": {"type": "boolean"}},
        "required": ["city", "warm"],
        "additionalProperties": False,
    }
    messages = [{"role": "user", "content": "weather in Lisbon"}]
    try:
        client.chat.completions.create(model=model, messages=messages, response_format={"type": "json_object"}, max_tokens=1)
    except openai.BadRequestError as error:
        check((error.status_code, error.param), (400, "response_format"))
        assert "feature constrain" in error.message, error
        print("the server is built without constraints, which it says", flush=True)
        return
    form = {"type": "json_schema", "json_schema": {"name": "weather", "strict": True, "schema": schema}}
    for extra in [{}, THINK]:
        answer = client.chat.completions.create(
            model=model, messages=messages, response_format=form, max_tokens=400, extra_body=extra
        )
        if answer.choices[0].finish_reason == "stop":
            value = json.loads(answer.choices[0].message.content)
            check((set(value), type(value["city"]), type(value["warm"])), ({"city", "warm"}, str, bool))
        elif not extra:
            raise AssertionError(answer)
    for choice in ["required", {"type": "function", "function": {"name": "get_weather"}}]:
        answer = client.chat.completions.create(
            model=model, messages=messages, tools=GEOGRAPHY, tool_choice=choice, max_tokens=400
        )
        check(answer.choices[0].finish_reason, "tool_calls")
        name, arguments = calls_of(answer.choices[0].message)[0]
        check(set(arguments), {"city"} if name == "get_weather" else {"nation"})
        if choice != "required":
            check(name, "get_weather")


def errors(client, model, base):
    def refused(kind, status, param, **fields):
        try:
            client.chat.completions.create(**{"model": model, "messages": [{"role": "user", "content": "hi"}], **fields})
        except kind as error:
            check((error.status_code, error.param), (status, param))
            return error
        raise AssertionError(f"{fields} was not refused")

    refused(openai.BadRequestError, 400, "temperature", temperature=-1)
    refused(openai.BadRequestError, 400, "messages", messages=[])
    refused(openai.BadRequestError, 400, "tool_choice", tool_choice="required")
    refused(openai.NotFoundError, 404, "model", model="other")
    error = refused(openai.BadRequestError, 400, "messages", messages=[{"role": "user", "content": "hi " * 4000}])
    check(error.code, "context_length_exceeded")
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "b", "content": "x"},
    ]
    refused(openai.BadRequestError, 400, "messages[2].tool_call_id", messages=history)
    try:
        openai.OpenAI(base_url=base + "/v1/nothing", api_key="-").models.list()
    except openai.NotFoundError as error:
        check(error.code, "unknown_url")


def metric(base, name):
    with urllib.request.urlopen(base + "/metrics") as response:
        for line in response.read().decode().splitlines():
            if line.startswith(f"deepseek_v32_{name} "):
                return float(line.split()[1])
    raise AssertionError(f"no {name}")


def cancellation(client, model, base):
    before = metric(base, "cancelled_total")
    stream = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hello"}], stream=True, logit_bias={"1": -100}, temperature=1.5
    )
    for count, _ in enumerate(stream):
        if count == 5:
            break
    stream.close()
    deadline = time.time() + 30
    while metric(base, "cancelled_total") == before or metric(base, "requests_running") > 0:
        assert time.time() < deadline, "the answer goes on"
        time.sleep(0.02)


def others(client, model):
    check([entry.id for entry in client.models.list()], [model])
    check(client.models.retrieve(model).id, model)
    text = client.completions.create(model=model, prompt=["hello", "weather"], max_tokens=3)
    check(len(text.choices), 2)
    pieces = client.completions.create(model=model, prompt="hello", max_tokens=3, stream=True)
    check("".join(piece.choices[0].text for piece in pieces), text.choices[0].text)


def main():
    base = sys.argv[1].rstrip("/")
    client = openai.OpenAI(base_url=base + "/v1", api_key="-", max_retries=0, timeout=120)
    model = client.models.list().data[0].id
    for name, test in [
        ("plain", lambda: plain(client, model)),
        ("streaming", lambda: streaming(client, model)),
        ("tools", lambda: tools(client, model)),
        ("parallel tools", lambda: parallel_tools(client, model)),
        ("constrained", lambda: constrained(client, model)),
        ("errors", lambda: errors(client, model, base)),
        ("cancellation", lambda: cancellation(client, model, base)),
        ("others", lambda: others(client, model)),
    ]:
        test()
        print(f"ok {name}", flush=True)


main()
