//! Connected buildings: buildings, gateways, devices, alerts.

use super::{Family, Measure, Naming, choice, date, link, number, status, things};

pub(super) const SENSORS: Family = Family {
    name: "sensors",
    settings: &[
        "I manage the sensors of an office campus.",
        "I'm on call for the building technology tonight.",
        "We want to save energy and I'm looking at our devices.",
    ],
    tables: &[
        things(
            ["building", "buildings"],
            &["building", "building_name"],
            Naming::Pair(&["North", "South", "Glass", "Brick", "Old", "New"], &["Tower", "Wing", "Block", "Pavilion"]),
            (10, 15),
            &[
                number(
                    &["area", "area_m2"],
                    "floor area",
                    (300, 24_000, 100),
                    Measure::Sum("square metres"),
                    ["with a floor area of at least {} square metres", "with a floor area of at most {} square metres"],
                    ["the largest {}", "the smallest {}"],
                ),
                choice(
                    &["use", "main_use"],
                    "use",
                    &["offices", "laboratories", "storage", "catering"],
                    "used mainly for {}",
                ),
            ],
        ),
        things(
            ["gateway", "gateways"],
            &["gateway", "gateway_id"],
            Naming::Hex,
            (18, 28),
            &[
                link(&["building", "installed_in"], "building", 0, "installed in {}"),
                choice(&["link_type", "uplink"], "uplink", &["fibre", "radio", "mobile"], "with a {} uplink"),
                number(
                    &["ports", "port_count"],
                    "number of ports",
                    (4, 48, 4),
                    Measure::Sum("ports"),
                    ["with at least {} ports", "with at most {} ports"],
                    ["the {} with the most ports", "the {} with the fewest ports"],
                ),
            ],
        ),
        things(
            ["device", "devices"],
            &["device", "device_id"],
            Naming::Code("DEV"),
            (44, 68),
            &[
                link(&["gateway", "connected_to"], "gateway", 1, "connected to the gateway {}"),
                choice(
                    &["kind", "device_type"],
                    "kind",
                    &["thermostat", "smoke detector", "motion sensor", "meter"],
                    "of the kind \"{}\"",
                ),
                number(
                    &["battery", "battery_percent"],
                    "battery level",
                    (2, 100, 1),
                    Measure::Level("percent"),
                    ["with a battery level of at least {} percent", "with a battery level of at most {} percent"],
                    ["the {} with the highest battery level", "the {} with the lowest battery level"],
                )
                .optional(),
                number(
                    &["power", "power_mw"],
                    "power use",
                    (5, 900, 5),
                    Measure::Sum("milliwatts"),
                    ["using at least {} milliwatts", "using at most {} milliwatts"],
                    ["the {} that uses the most power", "the {} that uses the least power"],
                ),
                date(
                    &["updated", "last_update"],
                    "date of the last update",
                    (19_800, 640),
                    ["last updated on or after {}", "last updated on or before {}"],
                    ["the most recently updated {}", "the {} that has not been updated for longest"],
                ),
            ],
        ),
        things(
            ["alert", "alerts"],
            &["alert_id", "alert", "id"],
            Naming::Code("AL"),
            (60, 95),
            &[
                link(&["device", "raised_by"], "device", 2, "raised by {}"),
                date(
                    &["day", "raised_on"],
                    "date",
                    (20_440, 21),
                    ["raised on or after {}", "raised on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                choice(&["severity", "level"], "severity", &["info", "warning", "critical"], "of the severity \"{}\""),
                number(
                    &["minutes", "minutes_active"],
                    "duration",
                    (2, 720, 1),
                    Measure::Sum("minutes"),
                    ["that lasted at least {} minutes", "that lasted at most {} minutes"],
                    ["the longest {}", "the shortest {}"],
                ),
                status(
                    &["status", "state"],
                    &["new", "acknowledged", "closed"],
                    "with the status {}",
                    ("new", "acknowledged"),
                    "Acknowledge {} (set the status to acknowledged)",
                ),
            ],
        ),
    ],
};
