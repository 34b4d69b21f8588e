ALIAS = "{s} is also known as {o}"
MOST_PAGES = 8


def read(form, sentence):
    """Subject and object of a sentence of a form."""
    before, rest = form.split("{s}", 1)
    between, after = rest.split("{o}", 1)
    if not sentence.startswith(before) or not sentence.endswith(after):
        return None
    inner = sentence[len(before) : len(sentence) - len(after)] if after else sentence[len(before) :]
    subject, found, target = inner.partition(between)
    return (subject, target) if found and subject and target else None


def told(form, title, sentence):
    """The same for a sentence of an article; a short name in front is that of its title."""
    fact = read(form, sentence)
    if fact and (fact[0] == "It" or title.endswith(" " + fact[0])):
        return title, fact[1]
    return fact


class Solver:
    def __init__(self, tools):
        self.tools, self.opened, self.searched = tools, {}, {}

    def search(self, query, page):
        if (query, page) not in self.searched:
            result = self.tools.search(query=query) if page == 1 else self.tools.search(query=query, page=page)
            articles = [found for found in result["results"] if found["kind"] == "article"]
            self.searched[query, page] = articles, result["pages"]
        return self.searched[query, page]

    def open(self, found):
        name = found["id"]
        if name not in self.opened:
            sentences, page, pages = [], 1, 1
            while page <= pages:
                result = self.tools.open(id=name) if page == 1 else self.tools.open(id=name, page=page)
                for line in result["text"].split("\n"):
                    sentences += [text.removesuffix(".") for text in line.split(". ")]
                page, pages = page + 1, result["pages"]
            self.opened[name] = found["title"], sentences
        return self.opened[name]

    def article(self, name):
        page, pages = 1, 1
        while page <= min(pages, MOST_PAGES):
            articles, pages = self.search(name, page)
            for found in articles:
                if found["title"] == name:
                    return self.open(found)
            page += 1
        raise LookupError(name)

    def canonical(self, name):
        articles, _ = self.search(name, 1)
        if any(found["title"] == name for found in articles):
            return name
        for found in articles:
            title, sentences = self.open(found)
            if any(told(ALIAS, title, sentence) == (title, name) for sentence in sentences):
                return title
        raise LookupError(name)

    def objects(self, name, relation):
        title, sentences = self.article(name)
        facts = [told(form, title, sentence) for sentence in sentences for form in FORMS[relation]]
        return list(dict.fromkeys(fact[1] for fact in facts if fact and fact[0] == name))

    def subjects(self, relation, target):
        subjects, page, pages = {}, 1, 1
        while page <= min(pages, MOST_PAGES):
            articles, pages = self.search(target, page)
            mentioned = False
            for found in articles:
                title, sentences = self.open(found)
                for sentence in sentences:
                    mentioned = mentioned or target in sentence
                    for form in FORMS[relation]:
                        fact = told(form, title, sentence)
                        if fact and fact[1] == target:
                            subjects[fact[0]] = True
            if not mentioned:
                break
            page += 1
        return list(subjects)

    def resolve(self, query):
        numbers = [clue for clue in query["clues"] if set(clue["target"]) & {"below", "above"}]
        names = None
        for clue in query["clues"]:
            if clue in numbers:
                continue
            target, relation = clue["target"], clue["relation"]
            others = self.resolve(target["described"]) if "described" in target else [self.canonical(target["named"])]
            if names is not None and not clue["inverse"]:
                names = [name for name in names if set(self.objects(name, relation)) & set(others)]
                continue
            find = self.objects if clue["inverse"] else lambda other, relation: self.subjects(relation, other)
            found = dict.fromkeys(name for other in others for name in find(other, relation))
            names = [name for name in found if names is None or name in names]
        for clue in numbers:
            names = [name for name in names if self.compares(name, clue)]
        return names

    def compares(self, name, clue):
        (kind, limit), = clue["target"].items()
        numbers = [int(number) for number in self.objects(name, clue["relation"])]
        return any(number < limit if kind == "below" else number > limit for number in numbers)


def solve(tools):
    solver = Solver(tools)
    (name,) = solver.resolve(QUESTION["of"])
    ask = QUESTION["ask"]
    answer = name if ask == "name" else solver.objects(name, ask["number"])[0]
    tools.submit_result(answer_text=answer)
