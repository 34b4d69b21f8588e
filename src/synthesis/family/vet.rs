//! A veterinary practice: owners, vets, pets, visits.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, status, things};

pub(super) const VET: Family = Family {
    name: "vet",
    settings: &[
        "I'm the receptionist of a veterinary practice.",
        "We're sending reminders to our pets' owners.",
        "I'm one of the vets and need something from our records.",
    ],
    tables: &[
        people(
            ["owner", "owners"],
            &["owner", "keeper", "owner_name"],
            (22, 36),
            &[
                choice(
                    &["district", "area"],
                    "district",
                    &["north", "south", "centre", "outskirts"],
                    "from the district \"{}\"",
                ),
                number(
                    &["distance", "distance_km"],
                    "distance",
                    (2, 240, 1),
                    Measure::Tenths("kilometre"),
                    ["living at least {} kilometres away", "living at most {} kilometres away"],
                    ["the {} who lives farthest away", "the {} who lives nearest"],
                ),
            ],
        ),
        people(
            ["vet", "vets"],
            &["vet", "vet_name"],
            (8, 12),
            &[
                choice(&["field", "specialty"], "field", &["surgery", "dentistry", "dermatology"], "working in {}"),
                number(
                    &["patients", "patient_count"],
                    "number of patients",
                    (20, 240, 1),
                    Measure::Sum("patients"),
                    ["with at least {} patients", "with at most {} patients"],
                    ["the {} with the most patients", "the {} with the fewest patients"],
                ),
            ],
        ),
        things(
            ["pet", "pets"],
            &["pet", "pet_name"],
            Naming::Listed(&[
                "Ace", "Archie", "Bailey", "Bella", "Benny", "Biscuit", "Bonnie", "Bruno", "Caesar", "Charlie",
                "Cookie", "Daisy", "Dexter", "Duchess", "Fern", "Flash", "Ginger", "Gizmo", "Hector", "Honey", "Jack",
                "Jasper", "Kiki", "Lady", "Lola", "Lucky", "Marble", "Max", "Merlin", "Milo", "Misty", "Molly",
                "Nutmeg", "Oreo", "Oscar", "Patch", "Peanut", "Pip", "Poppy", "Princess", "Rocky", "Rusty", "Sam",
                "Scout", "Smokey", "Snowy", "Socks", "Spot", "Teddy", "Tiger", "Toffee", "Truffle", "Walter",
                "Whiskers", "Ziggy",
            ]),
            (34, 52),
            &[
                link(&["owner", "belongs_to"], "owner", 0, "belonging to {}"),
                choice(
                    &["species", "animal"],
                    "species",
                    &["dog", "cat", "rabbit", "parrot", "ferret"],
                    "of the species \"{}\"",
                ),
                number(
                    &["weight", "weight_hg"],
                    "weight",
                    (3, 480, 1),
                    Measure::Tenths("kilogram"),
                    ["weighing at least {} kilograms", "weighing at most {} kilograms"],
                    ["the heaviest {}", "the lightest {}"],
                ),
                date(
                    &["born", "date_of_birth"],
                    "date of birth",
                    (15_500, 4_700),
                    ["born on or after {}", "born on or before {}"],
                    ["the youngest {}", "the oldest {}"],
                )
                .optional(),
                flag(&["chipped", "has_chip"], "microchip", ["with a microchip", "without a microchip"]),
                number(
                    &["shots", "vaccinations"],
                    "number of vaccinations",
                    (0, 14, 1),
                    Measure::Sum("vaccinations"),
                    ["with at least {} vaccinations", "with at most {} vaccinations"],
                    ["the {} with the most vaccinations", "the {} with the fewest vaccinations"],
                ),
            ],
        ),
        things(
            ["visit", "visits"],
            &["visit_id", "visit", "id"],
            Naming::Code("V"),
            (56, 88),
            &[
                link(&["pet", "pet_name"], "pet", 2, "of {}"),
                link(&["vet", "seen_by"], "vet", 1, "handled by {}"),
                date(
                    &["day", "visit_date"],
                    "date",
                    (20_200, 260),
                    ["on or after {}", "on or before {}"],
                    ["the most recent {}", "the earliest {}"],
                ),
                number(
                    &["bill", "amount_billed"],
                    "bill",
                    (20, 900, 5),
                    Measure::Money("€"),
                    ["billed at {} or more", "billed at {} or less"],
                    ["the most expensive {}", "the cheapest {}"],
                ),
                status(
                    &["status", "state"],
                    &["booked", "done", "missed"],
                    "with the status {}",
                    ("booked", "missed"),
                    "Record {} as missed (set the status to missed)",
                ),
            ],
        ),
    ],
};
