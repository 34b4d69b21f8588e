//! An observatory: telescopes, observers, targets, observations.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, status, things};

pub(super) const ASTRONOMY: Family = Family {
    name: "astronomy",
    settings: &[
        "I schedule the telescopes of an observatory.",
        "I'm an astronomer preparing a paper.",
        "I write the observatory's annual report.",
    ],
    tables: &[
        things(
            ["telescope", "telescopes"],
            &["telescope", "telescope_name"],
            Naming::Listed(&[
                "Aurora",
                "Big Eye",
                "Cassini Dome",
                "Draco",
                "Eclipse",
                "Far Sight",
                "Galileo",
                "Hubertus",
                "Iota",
                "Janus",
                "Kepler Dome",
                "Lyra",
            ]),
            (8, 12),
            &[
                number(
                    &["mirror", "mirror_cm"],
                    "mirror diameter",
                    (40, 820, 10),
                    Measure::Level("centimetres"),
                    [
                        "with a mirror diameter of at least {} centimetres",
                        "with a mirror diameter of at most {} centimetres",
                    ],
                    ["the {} with the highest mirror diameter", "the {} with the lowest mirror diameter"],
                ),
                flag(
                    &["remote", "remote_control"],
                    "remote control",
                    ["with remote control", "without remote control"],
                ),
            ],
        ),
        people(
            ["observer", "observers"],
            &["observer", "astronomer", "observer_name"],
            (16, 26),
            &[
                choice(
                    &["institute", "affiliation"],
                    "institute",
                    &["Uppsala", "Padua", "Kyoto", "La Plata"],
                    "from the institute in {}",
                ),
                number(
                    &["papers", "paper_count"],
                    "number of papers",
                    (0, 120, 1),
                    Measure::Sum("papers"),
                    ["with at least {} papers", "with at most {} papers"],
                    ["the {} with the most papers", "the {} with the fewest papers"],
                ),
            ],
        ),
        things(
            ["target", "targets"],
            &["target", "object", "target_name"],
            Naming::Lettered(&["NX", "GC", "PS", "VR", "KO", "HY"]),
            (26, 40),
            &[
                choice(
                    &["kind", "object_type"],
                    "kind",
                    &["galaxy", "nebula", "exoplanet", "variable star"],
                    "of the kind \"{}\"",
                ),
                number(
                    &["magnitude", "brightness"],
                    "magnitude",
                    (40, 190, 1),
                    Measure::Tenths("magnitude"),
                    ["with a magnitude of at least {}", "with a magnitude of at most {}"],
                    ["the {} with the highest magnitude", "the {} with the lowest magnitude"],
                ),
                number(
                    &["distance", "distance_ly"],
                    "distance",
                    (10, 88_000, 10),
                    Measure::Level("light years"),
                    ["at least {} light years away", "at most {} light years away"],
                    ["the most distant {}", "the nearest {}"],
                )
                .optional(),
            ],
        ),
        things(
            ["observation", "observations"],
            &["observation_id", "observation", "id"],
            Naming::Code("OB"),
            (56, 88),
            &[
                link(&["telescope", "made_with"], "telescope", 0, "made with {}"),
                link(&["observer", "made_by"], "observer", 1, "made by {}"),
                link(&["target", "object"], "target", 2, "of {}"),
                date(
                    &["night", "observed_on"],
                    "night",
                    (20_100, 350),
                    ["from the night of {} or later", "from the night of {} or earlier"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["exposure", "exposure_minutes"],
                    "exposure time",
                    (2, 480, 2),
                    Measure::Sum("minutes"),
                    ["exposed for at least {} minutes", "exposed for at most {} minutes"],
                    ["the {} with the longest exposure", "the {} with the shortest exposure"],
                ),
                status(
                    &["status", "state"],
                    &["queued", "taken", "rejected"],
                    "with the status {}",
                    ("queued", "rejected"),
                    "Reject {} (set the status to rejected)",
                ),
            ],
        ),
    ],
};
