//! A mobile network: sites, technicians, cells, faults.

use super::{Entity, Family, Measure, Naming, choice, date, flag, link, number, status};

pub(super) const TELECOM: Family = Family {
    name: "telecom",
    settings: &[
        "I'm on duty in the operations centre of a mobile network.",
        "We are clearing the backlog of faults in the network.",
        "I plan the maintenance of our radio sites.",
    ],
    tables: &[
        Entity {
            noun: "site",
            plural: "sites",
            who: false,
            keys: &["site", "site_name", "location"],
            naming: Naming::Place,
            rows: (16, 24),
            fields: &[
                choice(
                    &["terrain", "surroundings"],
                    "terrain",
                    &["urban", "rural", "coastal", "alpine"],
                    "in {} terrain",
                ),
                number(
                    &["height", "mast_height"],
                    "height of the mast",
                    (12, 85, 1),
                    Measure::Level("metres"),
                    ["with a mast of at least {} metres", "with a mast of at most {} metres"],
                    ["the {} with the highest mast", "the {} with the lowest mast"],
                ),
                flag(&["generator", "has_generator"], "generator", ["with a generator", "without a generator"]),
            ],
        },
        Entity {
            noun: "technician",
            plural: "technicians",
            who: true,
            keys: &["technician", "engineer", "technician_name"],
            naming: Naming::Person,
            rows: (14, 24),
            fields: &[
                choice(
                    &["skill", "speciality"],
                    "skill",
                    &["radio", "power", "transmission", "climbing"],
                    "trained in {}",
                ),
                number(
                    &["jobs", "jobs_done"],
                    "number of jobs done",
                    (3, 160, 1),
                    Measure::Sum("jobs"),
                    ["with at least {} jobs done", "with at most {} jobs done"],
                    ["the {} with the most jobs done", "the {} with the fewest jobs done"],
                ),
            ],
        },
        Entity {
            noun: "cell",
            plural: "cells",
            who: false,
            keys: &["cell_id", "cell"],
            naming: Naming::Code("CELL"),
            rows: (36, 60),
            fields: &[
                link(&["site", "mounted_at", "location"], "site", 0, "mounted at {}"),
                choice(&["technology", "generation"], "technology", &["4G", "5G", "NB-IoT"], "with the technology {}"),
                number(
                    &["load", "load_percent"],
                    "load in per cent",
                    (3, 99, 1),
                    Measure::Level("per cent"),
                    ["with a load of at least {} per cent", "with a load of at most {} per cent"],
                    ["the busiest {}", "the least busy {}"],
                ),
                number(
                    &["users", "connected_users"],
                    "number of users",
                    (0, 900, 1),
                    Measure::Sum("users"),
                    ["with at least {} users", "with at most {} users"],
                    ["the {} with the most users", "the {} with the fewest users"],
                ),
            ],
        },
        Entity {
            noun: "fault",
            plural: "faults",
            who: false,
            keys: &["fault_id", "fault", "id"],
            naming: Naming::Code("FLT"),
            rows: (48, 80),
            fields: &[
                link(&["cell", "cell_id"], "cell", 2, "in {}"),
                link(&["technician", "assigned_to"], "technician", 1, "assigned to {}"),
                choice(&["cause", "category"], "cause", &["power", "hardware", "software", "weather"], "caused by {}"),
                date(
                    &["reported", "reported_on"],
                    "date of the report",
                    (20_350, 70),
                    ["reported on or after {}", "reported on or before {}"],
                    ["the newest {}", "the oldest {}"],
                ),
                number(
                    &["downtime", "minutes_down"],
                    "downtime",
                    (2, 1_800, 1),
                    Measure::Sum("minutes"),
                    ["with at least {} minutes of downtime", "with at most {} minutes of downtime"],
                    ["the {} with the longest downtime", "the {} with the shortest downtime"],
                ),
                status(
                    &["status", "state"],
                    &["new", "assigned", "repaired", "closed"],
                    "with the status {}",
                    ("repaired", "closed"),
                    "Close {} (set the status to closed)",
                ),
            ],
        },
    ],
};
