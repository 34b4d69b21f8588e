//! Prints a goal as Python: the solution, which calls tools, and the verifier, which reads tables.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value as JsonValue;

use super::access::{By, Plan, listed, plan, setter};
use super::goal::Goal;
use super::query::{Filter, Rows, Scalar};
use super::slots::{Constraint, Slots};
use crate::environment::tables::{Action, Database, Role, TableTool};

/// What a printed verifier begins with.
const VERIFIER_HEAD: &str = r#"import json
from datetime import date, timedelta


def same(a, b):
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def changes(environment, state):
    found = {}
    for table, rows in environment["tables"].items():
        key = environment["keys"][table]
        later = {row[key]: row for row in state[table]}
        for row in rows:
            for column, value in row.items():
                if not same(value, later[row[key]][column]):
                    found[(table, row[key], column)] = later[row[key]][column]
    return found


def chosen(given, groups, pools):
    if not isinstance(given, list) or len(given) != len(groups):
        return None
    rows = []
    for (fixed, names), entry in zip(groups, given):
        if not isinstance(entry, dict) or set(entry) != set(fixed) | set(names):
            return None
        if any(not same(entry[name], value) for name, value in fixed.items()):
            return None
        for name in names:
            pool = pools[len(rows)]
            if not isinstance(entry[name], str) or entry[name] not in pool:
                return None
            rows.append(pool[entry[name]])
    return rows

"#;

/// The solution: `solve(tools)`.
///
/// # Errors
/// The tools do not suffice.
pub fn solution(goal: &Goal, tools: &[TableTool], schema: &Database) -> Result<String, String> {
    let mut printer = Printer { schema, tools: Some(tools), text: String::new(), indent: 1, names: 0 };
    printer.goal(goal)?;
    let submit = tools.iter().find(|tool| tool.action == Action::Submit).ok_or("no tool takes the answer")?;
    let name = submit.parameters.first().map_or("answer_text", |parameter| parameter.name.as_str());
    printer.line(&format!("tools.{}({name}=json.dumps(answer))", submit.name));
    printer.line("return answer");
    let head = "import json\nfrom datetime import date, timedelta\n\n\ndef solve(tools):\n";
    Ok(format!("{head}{}", printer.text))
}

/// The verifier: `verify(environment, answer, final_state)`, where the answer is the submitted text.
///
/// # Errors
/// The goal names a column that there isn't.
pub fn verifier(goal: &Goal, schema: &Database) -> Result<String, String> {
    let mut printer = Printer { schema, tools: None, text: String::new(), indent: 1, names: 0 };
    for line in [
        "try:",
        "    given = json.loads(answer)",
        "except (TypeError, ValueError):",
        "    return False",
        "tables = environment[\"tables\"]",
        "wanted = {}",
    ] {
        printer.line(line);
    }
    printer.goal(goal)?;
    printer.line("return bool(right) and same_changes(changes(environment, final_state), wanted)");
    let compare = "\ndef same_changes(found, wanted):\n    return set(found) == set(wanted) and all(same(found[at], wanted[at]) for at in wanted)\n\n\n";
    Ok(format!("{VERIFIER_HEAD}{compare}def verify(environment, answer, final_state):\n{}", printer.text))
}

struct Printer<'a> {
    schema: &'a Database,
    /// The tools of a solution; a verifier reads tables instead.
    tools: Option<&'a [TableTool]>,
    text: String,
    indent: usize,
    names: usize,
}

/// A value as Python writes it.
fn literal(value: &JsonValue) -> String {
    match value {
        JsonValue::Null => "None".to_string(),
        JsonValue::Bool(true) => "True".to_string(),
        JsonValue::Bool(false) => "False".to_string(),
        other => other.to_string(),
    }
}

/// A text as Python writes it.
fn quoted(text: &str) -> String {
    JsonValue::from(text).to_string()
}

fn list(items: &[usize]) -> String {
    let items: Vec<String> = items.iter().map(|at| format!("p[{at}]")).collect();
    format!("[{}]", items.join(", "))
}

impl Printer<'_> {
    fn line(&mut self, text: &str) {
        // A text always has room for more.
        let _ = writeln!(self.text, "{}{text}", "    ".repeat(self.indent));
    }

    fn name(&mut self, stem: &str) -> String {
        self.names += 1;
        format!("{stem}_{}", self.names)
    }

    fn key(&self, table: &str) -> Result<String, String> {
        let table = self.schema.table(table).ok_or_else(|| format!("there is no table {table}"))?;
        Ok(quoted(&table.key().name))
    }

    /// Prints what finds rows, and returns the name of their list.
    fn rows(&mut self, rows: &Rows, columns: &[&str]) -> Result<String, String> {
        let mut needed = rows.columns();
        needed.extend(columns.iter().map(|column| (*column).to_string()));
        let mut only: Vec<(String, String)> = Vec::new();
        let mut conditions = Vec::new();
        for filter in &rows.filters {
            match filter {
                Filter::Compare { column, comparison, value } => {
                    let value = literal(&value.to_json());
                    if comparison.sign() == "==" {
                        only.push((column.clone(), format!("[{value}]")));
                    }
                    let column = quoted(column);
                    conditions.push(format!("r[{column}] is not None and r[{column}] {} {value}", comparison.sign()));
                }
                Filter::Missing { column } => {
                    conditions.push(format!("r[{}] is None", quoted(column)));
                }
                Filter::Linked { column, rows: inner } => {
                    let found = self.rows(inner, &[])?;
                    let keys = self.name("keys");
                    let key = self.key(&inner.table)?;
                    self.line(&format!("{keys} = {{r[{key}] for r in {found}}}"));
                    only.push((column.clone(), format!("sorted({keys})")));
                    conditions.push(format!("r[{}] in {keys}", quoted(column)));
                }
                Filter::Has { column, rows: inner } | Filter::Lacks { column, rows: inner } => {
                    let found = self.rows(inner, &[column.as_str()])?;
                    let keys = self.name("keys");
                    self.line(&format!("{keys} = {{r[{}] for r in {found}}}", quoted(column)));
                    let word = if matches!(filter, Filter::Has { .. }) { "in" } else { "not in" };
                    conditions.push(format!("r[{}] {word} {keys}", self.key(&rows.table)?));
                }
            }
        }
        let base = match self.tools {
            None => format!("tables[{}]", quoted(&rows.table)),
            Some(tools) => {
                let given: Vec<&str> = only.iter().map(|(column, _)| column.as_str()).collect();
                let plan = plan(tools, self.schema, &rows.table, &needed, &given)?;
                self.fetch(&plan, &rows.table, &needed, &only)?
            }
        };
        let found = self.name("rows");
        let condition = if conditions.is_empty() { String::new() } else { format!(" if {}", conditions.join(" and ")) };
        self.line(&format!("{found} = [r for r in {base}{condition}]"));
        if let Some(extreme) = &rows.extreme {
            let (function, column) = (if extreme.most { "max" } else { "min" }, quoted(&extreme.column));
            let (known, best) = (self.name("known"), self.name("best"));
            self.line(&format!("{known} = [r for r in {found} if r[{column}] is not None]"));
            self.line(&format!("{best} = {function}((r[{column}] for r in {known}), default=None)"));
            self.line(&format!("{found} = [r for r in {known} if r[{column}] == {best}]"));
        }
        Ok(found)
    }

    /// Prints the calls of a plan, and returns the name of the list of rows.
    fn fetch(
        &mut self,
        plan: &Plan<'_>,
        table: &str,
        columns: &BTreeSet<String>,
        only: &[(String, String)],
    ) -> Result<String, String> {
        let (_, known, paged) = listed(plan.list).ok_or("no list")?;
        let (by, values) = match &plan.by {
            By::All => (None, None),
            By::Given(column, at) => (Some(column), Some(only[*at].1.clone())),
            By::Parent(column, target, parent) => {
                let keys = self.fetch(parent, target, &BTreeSet::new(), &[])?;
                (Some(column), Some(format!("[r[{}] for r in {keys}]", self.key(target)?)))
            }
        };
        let found = self.name(table);
        self.line(&format!("{found} = []"));
        let value = self.name("value");
        let outer = self.indent;
        if let Some(values) = values {
            self.line(&format!("for {value} in {values}:"));
            self.indent += 1;
        }
        let arguments = plan.list.parameters.iter().filter_map(|parameter| match &parameter.role {
            Role::Where(_) => Some(format!("{}={value}", parameter.name)),
            Role::Page if paged => Some(format!("{}=page", parameter.name)),
            _ => None,
        });
        let call = format!("tools.{}({})", plan.list.name, arguments.collect::<Vec<_>>().join(", "));
        if paged {
            self.line("page = 1");
            self.line("while True:");
            self.indent += 1;
            self.line(&format!("part = {call}"));
            self.line("for item in part[\"items\"]:");
        } else {
            self.line(&format!("for item in {call}:"));
        }
        self.indent += 1;
        match known {
            [only] => self.line(&format!("row = {{{}: item}}", quoted(only))),
            _ => self.line("row = dict(item)"),
        }
        if let Some(column) = by {
            self.line(&format!("row[{}] = {value}", quoted(column)));
        }
        if let Some(detail) = plan.detail {
            let key = self.key(table)?;
            let wanted: Vec<String> =
                columns.iter().filter(|name| quoted(name) != key).map(|name| quoted(name)).collect();
            let arguments = detail.parameters.iter().map(|parameter| match parameter.role {
                Role::Key => format!("{}=row[{key}]", parameter.name),
                _ => format!("{}=[{}]", parameter.name, wanted.join(", ")),
            });
            let arguments: Vec<String> = arguments.collect();
            self.line(&format!("row.update(tools.{}({}))", detail.name, arguments.join(", ")));
        }
        self.line(&format!("{found}.append(row)"));
        if paged {
            self.indent -= 1;
            self.line("if page >= part[\"pages\"]:");
            self.line("    break");
            self.line("page += 1");
        }
        self.indent = outer;
        Ok(found)
    }

    /// Prints what is needed, and returns an expression for the value.
    fn scalar(&mut self, scalar: &Scalar) -> Result<String, String> {
        let (rows, column) = match scalar {
            Scalar::Count { rows } => return Ok(format!("len({})", self.rows(rows, &[])?)),
            Scalar::Sum { rows, column } | Scalar::Span { rows, column } | Scalar::Shift { rows, column, .. } => {
                (rows, column)
            }
        };
        let found = self.rows(rows, &[column.as_str()])?;
        let column = quoted(column);
        if let Scalar::Sum { .. } = scalar {
            return Ok(format!("sum(r[{column}] for r in {found} if r[{column}] is not None)"));
        }
        let days = self.name("days");
        self.line(&format!("{days} = [date.fromisoformat(r[{column}]) for r in {found} if r[{column}] is not None]"));
        Ok(match scalar {
            Scalar::Shift { days: shift, .. } => {
                format!("((max({days}) + timedelta(days={shift})).isoformat() if {days} else None)")
            }
            _ => format!("((max({days}) - min({days})).days if {days} else 0)"),
        })
    }

    fn goal(&mut self, goal: &Goal) -> Result<(), String> {
        let solves = self.tools.is_some();
        match goal {
            Goal::Row { rows, fields } => {
                let columns: Vec<&str> = fields.iter().map(|(_, column)| column.as_str()).collect();
                let found = self.rows(rows, &columns)?;
                let entries: Vec<String> =
                    fields.iter().map(|(name, column)| format!("{}: r[{}]", quoted(name), quoted(column))).collect();
                let object = format!("{{{}}}", entries.join(", "));
                if solves {
                    self.line(&format!("r = {found}[0]"));
                    self.line(&format!("answer = {object}"));
                } else {
                    self.line(&format!("right = any(same(given, {object}) for r in {found})"));
                }
            }
            Goal::Keys { rows, name } => {
                let found = self.rows(rows, &[])?;
                let (key, name) = (self.key(&rows.table)?, quoted(name));
                self.line(&format!("keys = sorted(r[{key}] for r in {found})"));
                if solves {
                    self.line(&format!("answer = {{{name}: keys}}"));
                } else {
                    self.line(&format!("right = isinstance(given, dict) and set(given) == {{{name}}}"));
                    self.line(&format!("right = right and isinstance(given[{name}], list)"));
                    self.line(&format!(
                        "right = right and sorted(map(json.dumps, given[{name}])) == sorted(map(json.dumps, keys))"
                    ));
                }
            }
            Goal::Figures { figures } => {
                let entries =
                    figures.iter().map(|(name, scalar)| Ok(format!("{}: {}", quoted(name), self.scalar(scalar)?)));
                let object = format!("{{{}}}", entries.collect::<Result<Vec<_>, String>>()?.join(", "));
                match solves {
                    true => self.line(&format!("answer = {object}")),
                    false => self.line(&format!("right = same(given, {object})")),
                }
            }
            Goal::Fit { slots } => self.fit(slots)?,
            Goal::Change { rows, column, value, name } => {
                let found = self.rows(rows, &[])?;
                let (key, name, value) = (self.key(&rows.table)?, quoted(name), literal(&value.to_json()));
                if let Some(tools) = self.tools {
                    let tool = setter(tools, &rows.table, column);
                    let tool = tool.ok_or_else(|| format!("no tool sets {}.{column}", rows.table))?;
                    let arguments = tool.parameters.iter().map(|parameter| match parameter.role {
                        Role::Key => format!("{}=key", parameter.name),
                        _ => format!("{}={value}", parameter.name),
                    });
                    let arguments: Vec<String> = arguments.collect();
                    self.line(&format!("for key in sorted(r[{key}] for r in {found}):"));
                    self.line(&format!("    tools.{}({})", tool.name, arguments.join(", ")));
                    self.line(&format!("answer = {{{name}: len({found})}}"));
                } else {
                    let place = format!("({}, r[{key}], {})", quoted(&rows.table), quoted(column));
                    self.line(&format!("wanted = {{{place}: {value} for r in {found}}}"));
                    self.line(&format!("right = same(given, {{{name}: len({found})}})"));
                }
            }
            Goal::Either { scalar, comparison, number, then, otherwise } => {
                let value = self.scalar(scalar)?;
                self.line(&format!("if {value} {} {number}:", comparison.sign()));
                self.indent += 1;
                self.goal(then)?;
                self.indent -= 1;
                self.line("else:");
                self.indent += 1;
                self.goal(otherwise)?;
                self.indent -= 1;
            }
        }
        Ok(())
    }

    fn fit(&mut self, slots: &Slots) -> Result<(), String> {
        let mut pools: Vec<(String, &Rows, BTreeSet<String>)> = Vec::new();
        for (at, slot) in slots.all().enumerate() {
            let columns = slots.columns(at);
            let same = pools.iter().find(|(_, rows, other)| **rows == slot.rows && *other == columns);
            let name = match same {
                Some((name, ..)) => name.clone(),
                None => {
                    let names: Vec<&str> = columns.iter().map(String::as_str).collect();
                    let found = self.rows(&slot.rows, &names)?;
                    let pool = self.name("pool");
                    let key = self.key(&slot.rows.table)?;
                    match self.tools {
                        Some(_) => self.line(&format!("{pool} = sorted({found}, key=lambda r: r[{key}])")),
                        None => self.line(&format!("{pool} = {{r[{key}]: r for r in {found}}}")),
                    }
                    pool
                }
            };
            pools.push((name, &slot.rows, columns));
        }
        let tables: Vec<String> = slots.all().map(|slot| slot.rows.table.clone()).collect();
        let names: Vec<&str> = pools.iter().map(|(name, ..)| name.as_str()).collect();
        self.line(&format!("pools = [{}]", names.join(", ")));
        self.line("checks = [");
        let checks = slots.checks();
        for constraint in &checks {
            let slots: Vec<String> = constraint.slots().iter().map(usize::to_string).collect();
            self.line(&format!("    ({{{}}}, lambda p: {}),", slots.join(", "), self.constraint(constraint, &tables)?));
        }
        self.line("]");
        if self.tools.is_none() {
            let groups = slots.groups.iter().map(|group| {
                let given: Vec<String> =
                    group.given.iter().map(|(name, value)| format!("{}: {}", quoted(name), quoted(value))).collect();
                let names: Vec<String> = group.slots.iter().map(|slot| quoted(&slot.name)).collect();
                format!("({{{}}}, [{}])", given.join(", "), names.join(", "))
            });
            let groups: Vec<String> = groups.collect();
            self.line(&format!("p = chosen(given, [{}], pools)", groups.join(", ")));
            self.line("right = p is not None and all(check(p) for _, check in checks)");
            return Ok(());
        }
        let links = checks.iter().filter_map(|constraint| match constraint {
            Constraint::Link { slot, column, other } => Some(format!("({slot}, {}, {other})", quoted(column))),
            _ => None,
        });
        let links: Vec<String> = links.collect();
        self.line(&format!("links = [{}]", links.join(", ")));
        for line in [
            "for at, pool in enumerate(pools):",
            "    own = [check for slots, check in checks if slots == {at}]",
            "    pools[at] = [row for row in pool if all(check({at: row}) for check in own)]",
            "order = []",
            "while len(order) < len(pools):",
            "    costs = []",
            "    for at in set(range(len(pools))) - set(order):",
            "        cost = len(pools[at])",
            "        for slot, column, other in links:",
            "            if slot == at and other in order:",
            "                cost = min(cost, len(pools[at]) // max(1, len({row[column] for row in pools[at]})))",
            "        costs.append((cost, at))",
            "    order.append(min(costs)[1])",
            "",
            "def place(p):",
            "    if len(p) == len(pools):",
            "        return p",
            "    at = order[len(p)]",
            "    due = [check for slots, check in checks if at in slots and slots <= set(p) | {at}]",
            "    for row in pools[at]:",
            "        q = {**p, at: row}",
            "        if all(check(q) for check in due):",
            "            done = place(q)",
            "            if done:",
            "                return done",
            "    return None",
            "",
            "p = place({})",
        ] {
            self.line(line);
        }
        let mut at = 0;
        let mut objects = Vec::new();
        for group in &slots.groups {
            let mut entries: Vec<String> =
                group.given.iter().map(|(name, value)| format!("{}: {}", quoted(name), quoted(value))).collect();
            for slot in &group.slots {
                entries.push(format!("{}: p[{at}][{}]", quoted(&slot.name), self.key(&slot.rows.table)?));
                at += 1;
            }
            objects.push(format!("{{{}}}", entries.join(", ")));
        }
        self.line(&format!("answer = [{}]", objects.join(", ")));
        Ok(())
    }

    fn constraint(&self, constraint: &Constraint, tables: &[String]) -> Result<String, String> {
        Ok(match constraint {
            Constraint::Link { slot, column, other } => {
                let table = tables.get(*other).ok_or("a constraint names no slot")?;
                format!("p[{slot}][{}] == p[{other}][{}]", quoted(column), self.key(table)?)
            }
            Constraint::Distinct { slots, column } => {
                format!("len({{r[{}] for r in {}}}) == {}", quoted(column), list(slots), slots.len())
            }
            Constraint::Each { slots, column, comparison, value }
            | Constraint::Some { slots, column, comparison, value } => {
                let word = if matches!(constraint, Constraint::Each { .. }) { "all" } else { "any" };
                let (column, value) = (quoted(column), literal(&value.to_json()));
                let holds = format!("r[{column}] is not None and r[{column}] {} {value}", comparison.sign());
                format!("{word}({holds} for r in {})", list(slots))
            }
            Constraint::Sum { slots, column, comparison, value } => {
                let column = quoted(column);
                let sum = format!("sum(r[{column}] for r in {} if r[{column}] is not None)", list(slots));
                format!("{sum} {} {value}", comparison.sign())
            }
            Constraint::When { slot, column, least, most, then } => {
                let then = then.iter().map(|constraint| self.constraint(constraint, tables));
                let then = then.collect::<Result<Vec<_>, _>>()?.join(" and ");
                let then = if then.is_empty() { "True".to_string() } else { then };
                let cell = format!("p[{slot}][{}]", quoted(column));
                format!("({cell} is None or not {least} <= {cell} <= {most} or ({then}))")
            }
        })
    }
}
