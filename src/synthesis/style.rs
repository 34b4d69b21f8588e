//! How tables, columns and tools are named.

use super::family::Measure;
use super::seed::Stream;

/// The verbs of one style.
#[derive(Debug, Clone, Copy)]
pub struct Verbs {
    list: &'static str,
    get: &'static str,
    search: &'static str,
    range: &'static str,
    set: &'static str,
    figure: &'static str,
}

const VERBS: &[Verbs] = &[
    Verbs { list: "get_all", get: "get", search: "search", range: "filter", set: "set", figure: "compute" },
    Verbs { list: "list", get: "fetch", search: "find", range: "select", set: "update", figure: "count_up" },
    Verbs { list: "browse", get: "show", search: "look_up", range: "narrow", set: "change", figure: "summarise" },
    Verbs { list: "read", get: "describe", search: "query", range: "query_range", set: "write", figure: "measure" },
];

/// Verbs that only test-D has.
const UNSEEN: Verbs =
    Verbs { list: "enumerate", get: "retrieve", search: "scan", range: "restrict", set: "assign", figure: "evaluate" };

/// The words that Python does not take as names.
const KEYWORDS: &[&str] = &[
    "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del", "elif", "else", "except",
    "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal", "not", "or", "pass", "raise",
    "return", "try", "while", "with", "yield",
];

/// What a tool does, for its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Lists rows.
    List,
    /// Tells of one row.
    Get,
    /// Searches a text.
    Search,
    /// Compares a column.
    Range,
    /// Changes a row.
    Set,
    /// Gives a number over rows.
    Figure,
}

/// A style.
#[derive(Debug, Clone)]
pub struct Style {
    camel: bool,
    verbs: Verbs,
    /// A word before every tool's name.
    prefix: Option<&'static str>,
    /// Whether the noun stands before the verb.
    noun_first: bool,
    /// Whether arguments stand in the other order.
    pub reversed: bool,
    /// Rows of a page, where there are pages.
    pub page_size: Option<usize>,
    /// Whether one row is told of by keywords.
    pub keywords: bool,
    /// Whether the style is kept from training.
    pub unseen: bool,
}

impl Style {
    /// The style of tools that have fixed names.
    pub fn plain() -> Self {
        Self {
            camel: false,
            verbs: VERBS[0],
            prefix: None,
            noun_first: false,
            reversed: false,
            page_size: None,
            keywords: true,
            unseen: false,
        }
    }

    /// A style.
    pub fn draw(stream: &mut Stream) -> Self {
        let unseen = stream.chance(8);
        let verbs = *stream.pick(VERBS).unwrap_or(&UNSEEN);
        Self {
            camel: stream.chance(35),
            verbs: if unseen { UNSEEN } else { verbs },
            prefix: if unseen {
                Some("svc")
            } else if stream.chance(30) {
                stream.pick(&["api", "db", "desk", "data", "my"]).copied()
            } else {
                None
            },
            noun_first: stream.chance(25),
            reversed: unseen || stream.chance(40),
            page_size: if stream.chance(45) { stream.pick(&[8, 10, 15, 20, 25]).copied() } else { None },
            keywords: stream.chance(50),
            unseen,
        }
    }

    /// A short name of it.
    pub fn name(&self) -> String {
        let case = if self.camel { "camel" } else { "snake" };
        let order = if self.noun_first { "noun-first" } else { "verb-first" };
        let arguments = if self.reversed { "reversed" } else { "straight" };
        format!("{case}/{order}/{}/{}/{arguments}", self.verbs.list, self.prefix.unwrap_or("none"))
    }

    fn cased(&self, snake: &str) -> String {
        let snake = snake.replace(' ', "_");
        if !self.camel {
            return snake;
        }
        let mut words = snake.split('_');
        let mut name = words.next().unwrap_or_default().to_string();
        for word in words {
            let mut letters = word.chars();
            name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
            name.push_str(letters.as_str());
        }
        name
    }

    /// The name of a table.
    pub fn table(&self, plural: &str) -> String {
        plural.replace(' ', "_")
    }

    /// The name of a column. Money says that it is in cents.
    pub fn column(&self, name: &str, measure: Option<Measure>) -> String {
        match measure {
            Some(Measure::Money(_)) => self.cased(&format!("{name}_cents")),
            _ => self.cased(name),
        }
    }

    /// The name of a parameter, which Python takes as one too.
    pub fn parameter(&self, name: &str) -> String {
        let name = self.cased(name);
        if KEYWORDS.contains(&name.as_str()) { format!("{name}_value") } else { name }
    }

    /// The name of an entry of an answer.
    pub fn entry(&self, name: &str) -> String {
        self.cased(name)
    }

    /// The name of a tool: what it does, to what, and what follows ("by city").
    pub fn tool(&self, verb: Verb, noun: &str, rest: &str) -> String {
        let word = match verb {
            Verb::List => self.verbs.list,
            Verb::Get => self.verbs.get,
            Verb::Search => self.verbs.search,
            Verb::Range => self.verbs.range,
            Verb::Set => self.verbs.set,
            Verb::Figure => self.verbs.figure,
        };
        let mut parts: Vec<&str> = self.prefix.into_iter().collect();
        parts.extend(if self.noun_first { [noun, word] } else { [word, noun] });
        parts.extend((!rest.is_empty()).then_some(rest));
        self.cased(&parts.join("_"))
    }
}
