//! The example `accounts`: figures of three nodes under faults, held against what happened. Its full size
//! is for a release build; a debug build publishes less.

use std::process::{Command, Stdio};

const COUNT: usize = if cfg!(debug_assertions) { 6_000 } else { 50_000 };

#[test]
fn every_transaction_and_every_byte_is_accounted_for() {
    let mut command = Command::new(crate::peer::example("accounts"));
    command.args(["--count", &COUNT.to_string()]).stdin(Stdio::null()).env_remove("RUST_LOG");
    let output = command.output().unwrap();
    let [said, logged] = [output.stdout, output.stderr].map(|b| String::from_utf8(b).unwrap());
    println!("{said}");
    assert!(output.status.success(), "{said}{logged}");
    assert!(said.starts_with(&format!("{COUNT} transactions")), "{said}");
    assert!(logged.is_empty(), "{logged}");
}
