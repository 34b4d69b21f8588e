//! A zoo: keepers, enclosures, animals, feedings.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, status, things};

pub(super) const ZOO: Family = Family {
    name: "zoo",
    settings: &[
        "I'm the curator of a zoo.",
        "I'm a vet and visit the zoo every week.",
        "I'm planning the keepers' rounds at our zoo.",
    ],
    tables: &[
        people(
            ["keeper", "keepers"],
            &["keeper", "zookeeper", "keeper_name"],
            (12, 20),
            &[
                choice(
                    &["section", "area"],
                    "section",
                    &["big cats", "birds", "reptiles", "primates"],
                    "from the section \"{}\"",
                ),
                number(
                    &["years", "years_at_zoo"],
                    "years at the zoo",
                    (1, 30, 1),
                    Measure::Level("years"),
                    ["with at least {} years at the zoo", "with at most {} years at the zoo"],
                    ["the longest serving {}", "the {} with the fewest years at the zoo"],
                ),
            ],
        ),
        things(
            ["enclosure", "enclosures"],
            &["enclosure", "habitat", "enclosure_name"],
            Naming::Pair(
                &["Savannah", "Rainforest", "Desert", "Polar", "River", "Island"],
                &["House", "Ridge", "Lagoon", "Dome", "Terrace"],
            ),
            (14, 20),
            &[
                link(&["keeper", "looked_after_by"], "keeper", 0, "looked after by {}"),
                number(
                    &["area", "area_m2"],
                    "area",
                    (40, 5_200, 20),
                    Measure::Sum("square metres"),
                    ["of at least {} square metres", "of at most {} square metres"],
                    ["the largest {}", "the smallest {}"],
                ),
                flag(&["heated", "is_heated"], "whether it is heated", ["that are heated", "that are not heated"]),
            ],
        ),
        things(
            ["animal", "animals"],
            &["animal", "animal_name"],
            Naming::Listed(&[
                "Aba", "Bamboo", "Biscuit", "Bongo", "Caramel", "Chico", "Cleo", "Coco", "Dante", "Diva", "Echo",
                "Ella", "Fidget", "Ginger", "Hazel", "Indra", "Jabari", "Juno", "Kali", "Kito", "Loki", "Luna",
                "Mango", "Maya", "Mocha", "Nala", "Nemo", "Olive", "Onyx", "Pablo", "Pepper", "Pico", "Quinoa", "Raja",
                "Rio", "Rufus", "Saba", "Sahara", "Shadow", "Simba", "Taro", "Tika", "Tonga", "Umber", "Vega",
                "Willow", "Yoko", "Zazu", "Zephyr",
            ]),
            (34, 48),
            &[
                link(&["enclosure", "lives_in"], "enclosure", 1, "living in {}"),
                choice(
                    &["species", "kind"],
                    "species",
                    &["lion", "lemur", "flamingo", "tortoise", "tapir", "python"],
                    "of the species \"{}\"",
                ),
                number(
                    &["weight", "weight_kg"],
                    "weight",
                    (2, 240, 1),
                    Measure::Sum("kilograms"),
                    ["with a weight of at least {} kilograms", "with a weight of at most {} kilograms"],
                    ["the {} with the highest weight", "the {} with the lowest weight"],
                ),
                date(
                    &["born", "date_of_birth"],
                    "date of birth",
                    (14_000, 6_300),
                    ["born on or after {}", "born on or before {}"],
                    ["the youngest {}", "the oldest {}"],
                )
                .optional(),
            ],
        ),
        things(
            ["feeding", "feedings"],
            &["feeding_id", "feeding", "id"],
            Naming::Code("FD"),
            (56, 90),
            &[
                link(&["animal", "animal_name"], "animal", 2, "of {}"),
                date(
                    &["day", "feeding_date"],
                    "date",
                    (20_430, 21),
                    ["on or after {}", "on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["grams", "portion_grams"],
                    "portion",
                    (50, 9_000, 50),
                    Measure::Sum("grams"),
                    ["of at least {} grams", "of at most {} grams"],
                    ["the largest {}", "the smallest {}"],
                ),
                status(
                    &["status", "state"],
                    &["planned", "done", "refused"],
                    "with the status {}",
                    ("planned", "done"),
                    "Mark {} as done (set the status to done)",
                ),
            ],
        ),
    ],
};
