def plain(answer):
    """An answer as it is compared: without case, quotes, a full stop, "the" in front, and commas in numbers."""
    text = answer.strip().strip("\"'.").strip().lower().removeprefix("the ")
    return text.replace(",", "") if all(letter in "0123456789," for letter in text) else text


class Web:
    """The facts of the corpus, which the tools do not show."""

    def __init__(self, graph):
        self.things, self.facts = graph["things"], graph["facts"]
        self.relations = {relation["name"]: place for place, relation in enumerate(graph["relations"])}

    def clue(self, clue):
        relation, target = self.relations[clue["relation"]], clue["target"]
        facts = [(subject, value) for subject, of, value in self.facts if of == relation]
        if "below" in target:
            return {subject for subject, value in facts if value < target["below"]}
        if "above" in target:
            return {subject for subject, value in facts if value > target["above"]}
        if "named" in target:
            known = lambda thing: target["named"] in (thing["name"], thing.get("alias"))
            others = {place for place, thing in enumerate(self.things) if known(thing)}
        else:
            others = self.find(target["described"])
        if clue["inverse"]:
            return {value for subject, value in facts if subject in others}
        return {subject for subject, value in facts if value in others}

    def find(self, query):
        found = set.intersection(*map(self.clue, query["clues"]))
        return {place for place in found if self.things[place]["kind"] == query["kind"]}

    def answers(self, question):
        (place,) = self.find(question["of"])
        if question["ask"] == "name":
            thing = self.things[place]
            return [name for name in (thing["name"], thing.get("alias")) if name]
        relation = self.relations[question["ask"]["number"]]
        return [str(value) for subject, of, value in self.facts if (subject, of) == (place, relation)]


def verify(environment, answer, final_state):
    right = Web(environment["graph"]).answers(QUESTION)
    return isinstance(answer, str) and plain(answer) in map(plain, right)
