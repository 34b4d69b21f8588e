//! A small environment: accounts and transfers.

use std::collections::BTreeMap;

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::task::{Environment, Verdict};
use super::toolbox::ToolFailure;
use crate::chat::{Json, Message, Tool};

const NAMES: [&str; 12] =
    ["ada", "bruno", "chen", "dora", "emil", "fatma", "goran", "hana", "ivo", "june", "kofi", "lena"];

/// Accounts with whole balances. The task asks for transfers that leave the accounts at named balances.
///
/// Tools: `list_accounts`, `balance`, `transfer`. A transfer of more than an account holds is refused. The verifier looks
/// at the balances alone: any transfers that lead there are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    id: String,
    question: String,
    initial: BTreeMap<String, u64>,
    wanted: BTreeMap<String, u64>,
    balances: BTreeMap<String, u64>,
}

impl Ledger {
    /// A task of `transfers` transfers (at least 1, at most 8) between accounts; the same `seed` gives the same task.
    pub fn new(seed: u64, transfers: usize) -> Self {
        let transfers = transfers.clamp(1, 8);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut names = NAMES;
        names.shuffle(&mut rng);
        let count = (transfers + 2).min(NAMES.len());
        let initial: BTreeMap<String, u64> =
            names[..count].iter().map(|name| ((*name).to_string(), rng.random_range(20..100))).collect();
        let mut wanted = initial.clone();
        let mut orders = Vec::new();
        while orders.len() < transfers {
            let pair: Vec<&str> = names[..count].choose_multiple(&mut rng, 2).copied().collect();
            let most = wanted[pair[0]];
            if most == 0 {
                continue;
            }
            let amount = rng.random_range(1..=most);
            *wanted.entry(pair[0].to_string()).or_default() -= amount;
            *wanted.entry(pair[1].to_string()).or_default() += amount;
            orders.push(format!("{amount} from {} to {}", pair[0], pair[1]));
        }
        let question = format!("Transfer {}, then tell me that it is done.", orders.join(", then "));
        let id = format!("ledger-{seed}-{transfers}");
        Self { id, question, balances: initial.clone(), initial, wanted }
    }

    /// The balances that solve the task.
    pub fn wanted(&self) -> &BTreeMap<String, u64> {
        &self.wanted
    }

    fn account(&self, arguments: &Json, key: &str) -> Result<String, ToolFailure> {
        let name = arguments.get(key).and_then(Json::as_str).ok_or_else(|| format!("{key} must be a string"))?;
        if self.balances.contains_key(name) {
            Ok(name.to_string())
        } else {
            let known: Vec<&str> = self.balances.keys().map(String::as_str).collect();
            Err(format!("there is no account {name:?}; the accounts are {}", known.join(", ")).into())
        }
    }
}

impl Environment for Ledger {
    fn id(&self) -> &str {
        &self.id
    }

    fn reset(&mut self) -> Vec<Message> {
        self.balances = self.initial.clone();
        vec![Message::user(self.question.clone())]
    }

    fn tools(&self) -> Vec<Tool> {
        let text = |name: &str| (name.to_string(), serde_json::json!({"type": "string"}));
        let tool = |name: &str, description: &str, parameters: Vec<(String, serde_json::Value)>| {
            let required: Vec<&String> = parameters.iter().map(|(name, _)| name).collect();
            let required = serde_json::json!(required);
            let properties: serde_json::Map<_, _> = parameters.into_iter().collect();
            let schema = serde_json::json!({"type": "object", "properties": properties, "required": required});
            Tool::new(name, description, Json::from(&schema))
        };
        vec![
            tool("list_accounts", "List the names of all accounts.", Vec::new()),
            tool("balance", "Get the balance of an account.", vec![text("account")]),
            tool(
                "transfer",
                "Move an amount from one account to another.",
                vec![
                    text("from"),
                    text("to"),
                    ("amount".to_string(), serde_json::json!({"type": "integer", "minimum": 1})),
                ],
            ),
        ]
    }

    fn step(&mut self, tool: &str, arguments: &Json) -> Result<String, ToolFailure> {
        match tool {
            "list_accounts" => Ok(self.balances.keys().cloned().collect::<Vec<_>>().join(", ")),
            "balance" => Ok(self.balances[&self.account(arguments, "account")?].to_string()),
            "transfer" => {
                let (from, to) = (self.account(arguments, "from")?, self.account(arguments, "to")?);
                let amount = arguments.get("amount").map(Json::to_value).and_then(|amount| amount.as_u64());
                let amount = amount.filter(|amount| *amount > 0).ok_or("amount must be a whole number above 0")?;
                let left = self.balances[&from].checked_sub(amount);
                let left =
                    left.ok_or_else(|| format!("{from} holds {}, which is less than {amount}", self.balances[&from]))?;
                self.balances.insert(from.clone(), left);
                // Only amounts that an account held move, so the sum of all stays what it was.
                *self.balances.entry(to.clone()).or_default() += amount;
                Ok(format!("moved {amount} from {from} to {to}"))
            }
            other => Err(format!("there is no tool {other:?}").into()),
        }
    }

    fn verify(&self, answer: Option<&Message>) -> Verdict {
        if answer.is_none_or(|answer| answer.content.trim().is_empty()) {
            return Verdict::failed("no answer");
        }
        let wrong = |(name, wanted): (&String, &u64)| {
            let found = self.balances[name];
            (found != *wanted).then(|| format!("{name} holds {found}, expected {wanted}"))
        };
        let problems: Vec<String> = self.wanted.iter().filter_map(wrong).collect();
        if problems.is_empty() { Verdict::solved() } else { Verdict { score: 0.0, solved: false, problems } }
    }

    fn fork(&self) -> Box<dyn Environment> {
        Box::new(self.clone())
    }
}
