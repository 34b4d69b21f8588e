//! Cargo, run as the tests were built, so that nothing is built twice.

use std::env;
use std::process::Command;

/// What cargo sets for the programs that it runs. Build scripts of dependencies look at some of it, and would be run
/// again, and their crates built again, if it came to cargo itself.
const SET_BY_CARGO: [&str; 7] = [
    "CARGO_BIN_",
    "CARGO_CRATE_NAME",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_TARGET_TMPDIR",
    "OUT_DIR",
];

/// `cargo <arguments> --offline --message-format json` with the profile and features of this test binary.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).args(["--offline", "--message-format", "json"]);
    for (name, _) in env::vars_os() {
        if SET_BY_CARGO.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    for (feature, on) in [
        ("client", cfg!(feature = "client")),
        ("constrain", cfg!(feature = "constrain")),
        ("full", cfg!(feature = "full")),
        ("hub", cfg!(feature = "hub")),
        ("schema", cfg!(feature = "schema")),
        ("server", cfg!(feature = "server")),
    ] {
        if on {
            cargo.args(["--features", feature]);
        }
    }
    cargo
}
