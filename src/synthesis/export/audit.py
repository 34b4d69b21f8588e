"""Runs an exported task: python3 -m audit TASKDIR [TASKDIR ...]

Its solution must pass its verifier, so must the stored right answers, and the stored wrong ones must fail.
"""

import importlib.util
import json
import pathlib
import sys


def load(folder, name):
    spec = importlib.util.spec_from_file_location(f"{name}_of_task", folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def audit(folder):
    read = lambda name: json.loads((folder / name).read_text(encoding="utf-8"))
    environment, answers = read("environment.json"), read("answers.json")
    modules = {name: load(folder, name) for name in ("tools", "solution", "verify")}
    Tools, ToolError, verify = modules["tools"].Tools, modules["tools"].ToolError, modules["verify"].verify

    def passes(attempt):
        tools = Tools(environment)
        for call in attempt.get("calls", []):
            try:
                tools.call(call["tool"], call["arguments"])
            except ToolError:
                pass
        return verify(environment, attempt["answer"], tools.state)

    tools = Tools(environment)
    modules["solution"].solve(tools)
    counts = {
        "solution": (int(verify(environment, tools.answer, tools.state)), 1, True),
        "nothing": (int(verify(environment, None, Tools(environment).state)), 1, False),
        "gold": (int(passes(answers["gold"])), 1, True),
        "alternatives": (sum(map(passes, answers["alternatives"])), len(answers["alternatives"]), True),
        "wrong": (sum(map(passes, answers["wrong"])), len(answers["wrong"]), False),
    }
    right = True
    for name, (passed, of, wanted) in counts.items():
        right = right and passed == (of if wanted else 0)
        print(f"{folder.name} {name}: {passed} of {of} pass, {of if wanted else 0} should")
    return right


if __name__ == "__main__":
    sys.exit(0 if all([audit(pathlib.Path(folder)) for folder in sys.argv[1:]]) else 1)
