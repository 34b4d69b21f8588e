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
    /// A word and a number below 100, such as "Room 12".
    Numbered(&'static str),
    /// Two letters of the list and three digits, such as "KV 481".
    Lettered(&'static [&'static str]),
    /// A car's plate.
    Plate,
    /// A house in a street.
    Street,
    /// The name that a person has on the web.
    Handle,
    /// A file's name with one of these endings.
    File(&'static [&'static str]),
    /// Three groups of four digits.
    Digits,
    /// Eight digits of base 16.
    Hex,
}

const FIRST: &[&str] = &[
    "Ada", "Amir", "Anouk", "Bela", "Bruno", "Carla", "Chen", "Dalia", "Dora", "Edgar", "Emil", "Esther", "Fatma",
    "Felix", "Goran", "Greta", "Hana", "Hugo", "Ines", "Ivo", "Jana", "Jonas", "June", "Karim", "Kofi", "Lena", "Luis",
    "Maeve", "Marco", "Mina", "Nadia", "Niels", "Olga", "Oscar", "Paula", "Pavel", "Rosa", "Samir", "Selma", "Tara",
    "Theo", "Uma", "Viktor", "Wanda", "Yara", "Zoe", "Aiko", "Anton", "Beatriz", "Cyril", "Daria", "Elif", "Farid",
    "Gloria", "Henrik", "Imani", "Jasper", "Katya", "Leo", "Miriam", "Noor", "Otto", "Petra", "Quentin", "Rafael",
    "Sanne", "Tomas", "Ursula", "Vera", "Willem", "Xenia", "Yusuf",
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
    "Adeyemi",
    "Bauer",
    "Chaudhry",
    "Dubois",
    "Eriksen",
    "Fontana",
    "Gruber",
    "Horvat",
    "Ivanova",
    "Jovanovic",
    "Kowalski",
    "Lefevre",
    "Mbeki",
    "Nygaard",
    "Ortiz",
    "Petrov",
    "Reyes",
    "Santos",
    "Thorne",
    "Vasquez",
    "Whitfield",
    "Yamada",
];
const PLACE_HEADS: &[&str] = &[
    "Ash", "Brook", "Clear", "Dun", "Elm", "Fair", "Glen", "Harrow", "Iron", "Kings", "Lark", "Maple", "North", "Oak",
    "Pine", "Quarry", "Raven", "Stone", "Thorn", "Wester", "Alder", "Birch", "Copper", "Drift", "Eagle", "Fern",
    "Grey", "Hazel", "Linden", "Mill", "Otter", "Silver", "Swan", "Winter",
];
const PLACE_TAILS: &[&str] = &[
    "bridge", "bury", "dale", "field", "ford", "gate", "ham", "haven", "mouth", "port", "stead", "ton", "vale", "wick",
    "brook", "cliff", "hurst", "mere", "moor", "ridge", "shore", "well",
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
    "Argent",
    "Bluestem",
    "Corvus",
    "Driftwood",
    "Equinox",
    "Foxglove",
    "Harbourline",
    "Northwind",
    "Sycamore",
    "Vantage",
];
const COMPANY_TAILS: &[&str] =
    &["Foods", "Goods", "Group", "Industries", "Labs", "Logistics", "Partners", "Supply", "Trading", "Works"];

const LETTERS: &[&str] = &["A", "B", "C", "D", "F", "G", "H", "K", "L", "M", "N", "P", "R", "S", "T", "V", "X", "Z"];
const STREET_TAILS: &[&str] = &["Avenue", "Close", "Crescent", "Lane", "Road", "Row", "Street", "Terrace"];
const HANDLE_HEADS: &[&str] = &[
    "amber", "brisk", "calm", "dusty", "fuzzy", "gentle", "hidden", "icy", "jolly", "lucky", "mellow", "nimble", "odd",
    "pale", "quiet", "rapid", "sunny", "tiny", "vivid", "wild",
];
const HANDLE_TAILS: &[&str] = &[
    "badger", "cedar", "comet", "falcon", "fox", "heron", "lynx", "maple", "otter", "panda", "pebble", "raven",
    "tiger", "willow",
];
const FILE_HEADS: &[&str] = &[
    "agenda",
    "archive",
    "backup",
    "budget",
    "contract",
    "draft",
    "forecast",
    "inventory",
    "invoice",
    "ledger",
    "manual",
    "minutes",
    "notes",
    "offer",
    "plan",
    "report",
    "schedule",
    "summary",
    "survey",
    "timeline",
];

impl Naming {
    fn one(self, stream: &mut Stream) -> String {
        match self {
            Self::Person => format!("{} {}", stream.word(FIRST), stream.word(LAST)),
            Self::Place => format!("{}{}", stream.word(PLACE_HEADS), stream.word(PLACE_TAILS)),
            Self::Company => format!("{} {}", stream.word(COMPANY_HEADS), stream.word(COMPANY_TAILS)),
            Self::Code(prefix) => format!("{prefix}-{}", stream.between(1000, 9999)),
            Self::Pair(heads, tails) => format!("{} {}", stream.word(heads), stream.word(tails)),
            Self::Listed(names) => stream.word(names).to_string(),
            Self::Numbered(word) => format!("{word} {}", stream.between(1, 99)),
            Self::Lettered(letters) => format!("{} {}", stream.word(letters), stream.between(100, 999)),
            Self::Plate => format!(
                "{}{}-{}-{}",
                stream.word(LETTERS),
                stream.word(LETTERS),
                stream.between(100, 999),
                stream.word(LETTERS)
            ),
            Self::Street => {
                let number = stream.between(1, 120);
                format!("{number} {} {}", stream.word(PLACE_HEADS), stream.word(STREET_TAILS))
            }
            Self::Handle => {
                let number = stream.between(2, 99);
                format!("{}{}{number}", stream.word(HANDLE_HEADS), stream.word(HANDLE_TAILS))
            }
            Self::File(endings) => {
                let number = stream.between(1, 30);
                format!("{}-{number:02}.{}", stream.word(FILE_HEADS), stream.word(endings))
            }
            Self::Digits => {
                let mut group = || stream.between(1000, 9999);
                format!("{} {} {}", group(), group(), group())
            }
            Self::Hex => format!("{:08x}", stream.between(0x1000_0000, 0xffff_ffff)),
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
