//! The README and the programs name one command that fetches the weights.

use smollm2::model::{FETCH, Model};

#[test]
fn the_command_is_the_one_in_the_readme() {
    assert!(include_str!("../README.md").lines().any(|line| line == FETCH));
}

#[test]
fn without_weights_the_command_is_told() {
    let error = Model::read("no/such/folder/weights.gguf".as_ref()).err().map(|error| error.to_string());
    let told = error.unwrap_or_default();
    assert!(told.starts_with("no/such/folder/weights.gguf: "), "{told}");
    assert!(told.ends_with(&format!(":\n\n    {FETCH}\n")), "{told}");
}
