//! Cargo, run as the tests were built, so that nothing is built twice.

use std::process::Command;

/// `cargo <arguments> --offline --message-format json` with the profile and features of this test binary.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).args(["--offline", "--message-format", "json"]);
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
