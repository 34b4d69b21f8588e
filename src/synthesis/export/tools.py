class ToolError(Exception):
    pass


def role(parameter):
    return parameter["role"] if isinstance(parameter["role"], str) else "where"


class Tools:
    """The tools of a task over a copy of its tables: `tools.NAME(argument=...)`."""

    def __init__(self, environment):
        self.environment = environment
        self.state = copy.deepcopy(environment["tables"])
        self.answer = None
        self.specs = {tool["name"]: tool for tool in TOOLS}

    def __getattr__(self, name):
        if name.startswith("__") or name not in self.specs:
            raise AttributeError(name)
        return lambda **arguments: self.call(name, arguments)

    def call(self, name, arguments):
        spec = self.specs[name]
        roles = {}
        for parameter in spec["parameters"]:
            if parameter["name"] in arguments:
                roles[parameter["name"]] = (role(parameter), parameter["role"], arguments[parameter["name"]])
            elif role(parameter) not in ("page", "least", "most"):
                raise ToolError(f"{name} needs {parameter['name']}")
        if len(roles) != len(arguments):
            raise ToolError(f"{name} has no such parameter")
        given = {kind: value for kind, _, value in roles.values()}
        where = {full["where"]: value for kind, full, value in roles.values() if kind == "where"}
        action = spec["action"]
        kind, data = (action, {}) if isinstance(action, str) else next(iter(action.items()))
        return copy.deepcopy(getattr(self, "do_" + kind)(data, given, where))

    def row(self, data, given):
        key = self.environment["keys"][data["table"]]
        for row in self.state[data["table"]]:
            if row[key] == given["key"]:
                return row
        raise ToolError(f"there is no {key} {given['key']!r}")

    def selected(self, data, where):
        rows = self.state[data["table"]]
        for column, value in where.items():
            target = self.environment["references"].get(f"{data['table']}.{column}")
            known = target and any(row[self.environment["keys"][target]] == value for row in self.state[target])
            if not known and all(row[column] != value for row in self.state[data["table"]]):
                raise ToolError(f"nothing found for {column} {value!r}")
            rows = [row for row in rows if row[column] == value]
        return rows

    def shown(self, rows, columns):
        if len(columns) == 1:
            return [row[columns[0]] for row in rows]
        return [{column: row[column] for column in columns} for row in rows]

    def few(self, rows, columns):
        if len(rows) > 50:
            raise ToolError("more than 50 rows")
        return self.shown(rows, columns)

    def do_list(self, data, given, where):
        rows = self.selected(data, where)
        size = data.get("page_size")
        if not size:
            return self.shown(rows, data["columns"])
        page, pages = given.get("page", 1), max(1, -(-len(rows) // size))
        if not 1 <= page <= pages:
            raise ToolError(f"there are pages 1 to {pages}")
        items = self.shown(rows[(page - 1) * size : page * size], data["columns"])
        return {"items": items, "page": page, "pages": pages}

    def do_range(self, data, given, where):
        least, most = given.get("least"), given.get("most")
        rows = [
            row
            for row in self.state[data["table"]]
            if row[data["column"]] is not None
            and (least is None or row[data["column"]] >= least) and (most is None or row[data["column"]] <= most)
        ]
        return self.few(rows, data["columns"])

    def do_search(self, data, given, where):
        text = given["text"].lower()
        return self.few([row for row in self.state[data["table"]] if text in (row[data["column"]] or "").lower()], data["columns"])

    def do_get(self, data, given, where):
        return self.row(data, given)

    def do_infos(self, data, given, where):
        row = self.row(data, given)
        return {name: row[name] for name in given["keywords"]}

    def do_field(self, data, given, where):
        return self.row(data, given)[data["column"]]

    def do_aggregate(self, data, given, where):
        rows = self.selected(data, where)
        if data["figure"] == "count":
            return len(rows)
        values = [row[data["column"]] for row in rows if row[data["column"]] is not None]
        if data["figure"] == "sum":
            return sum(values)
        return {"least": min, "most": max}[data["figure"]](values, default=None)

    def do_set(self, data, given, where):
        row = self.row(data, given)
        if data["before"] and row[data["column"]] not in data["before"]:
            raise ToolError(f"{row[data['column']]!r} can't be changed")
        if data["after"] and given["value"] not in data["after"]:
            raise ToolError(f"{given['value']!r} is not possible")
        row[data["column"]] = given["value"]
        return "done"

    def do_add(self, data, given, where):
        row = self.row(data, given)
        if row[data["column"]] is None or row[data["column"]] + given["amount"] < 0:
            raise ToolError("too little")
        row[data["column"]] += given["amount"]
        return row[data["column"]]

    def do_days_between(self, data, given, where):
        return (date.fromisoformat(given["to"]) - date.fromisoformat(given["from"])).days

    def do_add_days(self, data, given, where):
        return (date.fromisoformat(given["from"]) + timedelta(days=given["amount"])).isoformat()

    def do_notice(self, data, given, where):
        return data["text"]

    def do_submit(self, data, given, where):
        self.answer = given["answer"]
        return "submitted"
