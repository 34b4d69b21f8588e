//! Names for the rows of tables.

use std::collections::BTreeSet;

use crate::synthesis::seed::Stream;

/// How keys are made.
#[derive(Debug, Clone, Copy)]
pub enum Naming {
    /// First and last names.
    Person,
    /// Names of towns that there are not.
    Place,
    /// Companies.
    Company,
    /// A prefix and a number.
    Code(&'static str),
    /// A word of the first list before one of the second.
    Pair(&'static [&'static str], &'static [&'static str]),
    /// Some of these.
    Listed(&'static [&'static str]),
}

const FIRST: &[&str] = &[
    "Ada", "Amir", "Anouk", "Bela", "Bruno", "Carla", "Chen", "Dalia", "Dora", "Edgar", "Emil", "Esther", "Fatma",
    "Felix", "Goran", "Greta", "Hana", "Hugo", "Ines", "Ivo", "Jana", "Jonas", "June", "Karim", "Kofi", "Lena", "Luis",
    "Maeve", "Marco", "Mina", "Nadia", "Niels", "Olga", "Oscar", "Paula", "Pavel", "Rosa", "Samir", "Selma", "Tara",
    "Theo", "Uma", "Viktor", "Wanda", "Yara", "Zoe",
];
const LAST: &[&str] = &[
    "Abbott",
    "Alvarez",
    "Berg",
    "Castellan",
    "Danek",
    "Demir",
    "Ekholm",
    "Farkas",
    "Ferrari",
    "Greer",
    "Haddad",
    "Hoffmann",
    "Ito",
    "Jansen",
    "Keller",
    "Koch",
    "Larsen",
    "Lindqvist",
    "Marsh",
    "Mendes",
    "Moreau",
    "Nakata",
    "Novak",
    "Okafor",
    "Olsen",
    "Pereira",
    "Quist",
    "Rahimi",
    "Rossi",
    "Sato",
    "Schmidt",
    "Silva",
    "Tanaka",
    "Toth",
    "Ueda",
    "Varga",
    "Weber",
    "Winter",
    "Yilmaz",
    "Zeman",
];
const PLACE_HEADS: &[&str] = &[
    "Ash", "Brook", "Clear", "Dun", "Elm", "Fair", "Glen", "Harrow", "Iron", "Kings", "Lark", "Maple", "North", "Oak",
    "Pine", "Quarry", "Raven", "Stone", "Thorn", "Wester",
];
const PLACE_TAILS: &[&str] = &[
    "bridge", "bury", "dale", "field", "ford", "gate", "ham", "haven", "mouth", "port", "stead", "ton", "vale", "wick",
];
const COMPANY_HEADS: &[&str] = &[
    "Aldane",
    "Borealis",
    "Cobalt",
    "Delphi",
    "Everline",
    "Fennel",
    "Granite",
    "Halcyon",
    "Indigo",
    "Juniper",
    "Kestrel",
    "Lumen",
    "Meridian",
    "Nimbus",
    "Orchard",
    "Polaris",
    "Quill",
    "Redwood",
    "Sable",
    "Tidewater",
];
const COMPANY_TAILS: &[&str] =
    &["Foods", "Goods", "Group", "Industries", "Labs", "Logistics", "Partners", "Supply", "Trading", "Works"];

impl Naming {
    fn one(self, stream: &mut Stream) -> String {
        match self {
            Self::Person => format!("{} {}", stream.word(FIRST), stream.word(LAST)),
            Self::Place => format!("{}{}", stream.word(PLACE_HEADS), stream.word(PLACE_TAILS)),
            Self::Company => format!("{} {}", stream.word(COMPANY_HEADS), stream.word(COMPANY_TAILS)),
            Self::Code(prefix) => format!("{prefix}-{}", stream.between(1000, 9999)),
            Self::Pair(heads, tails) => format!("{} {}", stream.word(heads), stream.word(tails)),
            Self::Listed(names) => stream.word(names).to_string(),
        }
    }

    /// Up to `count` different names, in the order that they were drawn.
    pub fn draw(self, count: usize, stream: &mut Stream) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let mut names = Vec::new();
        // A list may have fewer names than are asked for.
        for _ in 0..count * 20 {
            if names.len() == count {
                break;
            }
            let name = self.one(stream);
            if seen.insert(name.clone()) {
                names.push(name);
            }
        }
        names
    }
}
