//! A company's file server: users, volumes, folders, files.

use super::{Entity, Family, Measure, Naming, choice, date, flag, link, number, status, things};

pub(super) const FILES: Family = Family {
    name: "files",
    settings: &[
        "I administer the file server of a small company.",
        "Our disks are nearly full and I want to tidy up.",
        "I'm moving our shared drive to a new server.",
    ],
    tables: &[
        Entity {
            who: true,
            ..things(
                ["user", "users"],
                &["user", "user_name", "login"],
                Naming::Handle,
                (16, 26),
                &[
                    choice(
                        &["department", "team"],
                        "department",
                        &["finance", "design", "legal", "support"],
                        "from the {} department",
                    ),
                    number(
                        &["quota", "quota_gb"],
                        "disk quota",
                        (5, 200, 5),
                        Measure::Sum("gigabytes"),
                        ["with a disk quota of at least {} gigabytes", "with a disk quota of at most {} gigabytes"],
                        ["the {} with the highest disk quota", "the {} with the lowest disk quota"],
                    ),
                ],
            )
        },
        things(
            ["volume", "volumes"],
            &["volume", "volume_name"],
            Naming::Listed(&[
                "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo",
                "lima",
            ]),
            (8, 12),
            &[
                number(
                    &["capacity", "size_gb"],
                    "capacity",
                    (250, 8_000, 250),
                    Measure::Sum("gigabytes"),
                    ["with a capacity of at least {} gigabytes", "with a capacity of at most {} gigabytes"],
                    ["the {} with the highest capacity", "the {} with the lowest capacity"],
                ),
                flag(
                    &["encrypted", "is_encrypted"],
                    "whether it is encrypted",
                    ["that are encrypted", "that are not encrypted"],
                ),
            ],
        ),
        things(
            ["folder", "folders"],
            &["folder", "folder_path"],
            Naming::Pair(
                &["clients", "projects", "archive", "shared", "private", "exports"],
                &["/2021", "/2022", "/2023", "/2024", "/incoming", "/final", "/old", "/media"],
            ),
            (24, 36),
            &[
                link(&["volume", "stored_on"], "volume", 1, "on {}"),
                link(&["owner", "owned_by"], "owner", 0, "owned by {}"),
                number(
                    &["links", "share_links"],
                    "number of share links",
                    (0, 40, 1),
                    Measure::Sum("share links"),
                    ["with at least {} share links", "with at most {} share links"],
                    ["the {} with the most share links", "the {} with the fewest share links"],
                ),
                choice(&["access", "visibility"], "access", &["public", "team", "restricted"], "with {} access"),
            ],
        ),
        things(
            ["file", "files"],
            &["file", "file_name"],
            Naming::File(&["pdf", "xlsx", "docx", "csv", "png"]),
            (60, 95),
            &[
                link(&["folder", "folder_path"], "folder", 2, "in {}"),
                number(
                    &["size", "size_kb"],
                    "size",
                    (4, 96_000, 4),
                    Measure::Sum("kilobytes"),
                    ["of at least {} kilobytes", "of at most {} kilobytes"],
                    ["the largest {}", "the smallest {}"],
                ),
                date(
                    &["modified", "changed_on"],
                    "date of the last change",
                    (18_600, 1_850),
                    ["last changed on or after {}", "last changed on or before {}"],
                    ["the most recently changed {}", "the {} that has not been changed for longest"],
                ),
                number(
                    &["downloads", "download_count"],
                    "number of downloads",
                    (0, 300, 1),
                    Measure::Sum("downloads"),
                    ["with at least {} downloads", "with at most {} downloads"],
                    ["the {} with the most downloads", "the {} with the fewest downloads"],
                )
                .optional(),
                status(
                    &["state", "status"],
                    &["active", "archived", "marked for deletion"],
                    "with the state \"{}\"",
                    ("marked for deletion", "archived"),
                    "Archive {} instead of deleting them (set the state to archived)",
                ),
            ],
        ),
    ],
};
