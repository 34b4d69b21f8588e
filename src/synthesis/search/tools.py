import re


class ToolError(Exception):
    pass


FRACTION = 16
LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def tokens(text):
    return [word.translate(LOWER) for word in re.findall("[0-9A-Za-z\x80-\U0010ffff]+", text)]


def logarithm(number, of):
    """The logarithm to base 2 of number / of, times 2^16 and rounded down."""
    ratio = (number << 32) // max(of, 1)
    if ratio < 1 << 32:
        return 0
    log = ratio.bit_length() - 33
    ratio >>= log
    for _ in range(FRACTION):
        ratio = (ratio * ratio) >> 32
        log <<= 1
        if ratio >= 2 << 32:
            log |= 1
            ratio >>= 1
    return log


def pages(text, characters):
    found, room = [], 0
    for paragraph in text.split("\n"):
        size = len(paragraph) + 1
        if found and size <= room:
            found[-1] += "\n" + paragraph
            room -= size
        else:
            found.append(paragraph)
            room = max(characters - size, 0)
    return found


def snippet(text, words):
    best, most = "", 0
    for line in text.split("\n"):
        for sentence in line.split(". "):
            sentence = sentence.removesuffix(".")
            count = len(words.intersection(tokens(sentence)))
            if count > most or not best:
                best, most = sentence, count
    return best


def place(page, count, size):
    whole = max(1, -(-count // size))
    if isinstance(page, bool) or not isinstance(page, int):
        raise ToolError("the page must be a whole number")
    if not 1 <= page <= whole:
        raise ToolError(f"there are pages 1 to {whole}")
    return whole, slice((page - 1) * size, page * size)


class Tools:
    """The tools of a task over its documents: `tools.NAME(argument=...)`."""

    def __init__(self, environment):
        self.documents, self.hits = environment["documents"], max(1, environment["hits"])
        self.characters = environment["characters"]
        self.postings, self.lengths, self.answer, self.state = {}, [], None, {}
        for number, document in enumerate(self.documents):
            words = tokens(document["title"] + "\n" + document["text"])
            self.lengths.append(len(words))
            for word in words:
                times = self.postings.setdefault(word, {})
                times[number] = times.get(number, 0) + 1

    def call(self, name, arguments):
        known = {"search": ("query", "page"), "open": ("id", "page"), "submit_result": ("answer_text",)}
        if name not in known:
            raise ToolError(f"there is no tool {name!r}")
        if set(arguments) - set(known[name]) or known[name][0] not in arguments:
            raise ToolError(f"{name} takes {' and '.join(known[name])}")
        if not isinstance(arguments[known[name][0]], str):
            raise ToolError(f"{known[name][0]} must be a text")
        return getattr(self, name)(**arguments)

    def search(self, query, page=1):
        words = set(tokens(query))
        if not words:
            raise ToolError("the query has no words")
        count, total, scores = len(self.documents), sum(self.lengths), {}
        for word in words:
            found = self.postings.get(word, {})
            weight = logarithm(2 * count + 2, 2 * len(found) + 1)
            for number, times in found.items():
                below = 40 * times * total + 12 * total + 36 * self.lengths[number] * count
                scores[number] = scores.get(number, 0) + weight * 88 * times * total // max(below, 1)
        order = sorted((number for number, score in scores.items() if score), key=lambda number: (-scores[number], number))
        whole, shown = place(page, len(order), self.hits)
        results = []
        for number in order[shown]:
            document = self.documents[number]
            results.append(
                {
                    "id": f"doc-{number:03}",
                    "kind": document["kind"],
                    "title": document["title"],
                    "snippet": snippet(document["text"], words),
                }
            )
        return {"results": results, "page": page, "pages": whole}

    def open(self, id, page=1):
        for number, document in enumerate(self.documents):
            if f"doc-{number:03}" == id:
                texts = pages(document["text"], self.characters)
                whole, shown = place(page, len(texts), 1)
                text = "\n".join(texts[shown])
                kind, title = document["kind"], document["title"]
                return {"id": id, "kind": kind, "title": title, "text": text, "page": page, "pages": whole}
        raise ToolError(f"there is no document {id!r}")

    def submit_result(self, answer_text):
        self.answer = answer_text
        return "submitted"
