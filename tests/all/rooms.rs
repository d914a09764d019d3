//! The structure that ARCHITECTURE.md describes, held against the source: which room imports which, which may hold
//! `unsafe`, and that one room alone knows the instruction sets.
#![cfg(not(miri))]

use std::fs;
use std::path::{Path, PathBuf};

/// Each room imports only from rooms above it (and from itself).
const ROOMS: [&str; 15] = [
    "error",
    "extra",
    "shape",
    "view",
    "ahead",
    "place",
    "panel",
    "isa",
    "element",
    "math",
    "score",
    "tiling",
    "kernel",
    "job",
    "attention",
];

/// The rooms that may hold `unsafe`.
const UNSAFE: [&str; 3] = ["panel", "isa", "job"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// (room, path, source without comments) of every file of `src` but `lib.rs`.
fn files() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    let room = |path: &Path| {
        let first = path.strip_prefix(&root).unwrap().iter().next().unwrap();
        Path::new(first).file_stem().unwrap().to_str().unwrap().to_string()
    };
    let code = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    };
    let files: Vec<_> = paths.iter().map(|path| (room(path), path.clone(), code(path))).collect();
    assert!(files.len() > 20, "the source is where it is looked for");
    files.into_iter().filter(|(room, ..)| room != "lib").collect()
}

#[test]
fn rooms_import_only_from_rooms_above() {
    let place = |room: &str| ROOMS.iter().position(|&r| r == room);
    for (room, path, code) in files() {
        let own = place(&room).unwrap_or_else(|| panic!("{}: a room that the list lacks", path.display()));
        for import in code.split("crate::").skip(1) {
            let name: String = import.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            // What begins otherwise is a public name, in a link of the docs.
            let Some(other) = place(&name) else { continue };
            assert!(other <= own, "{}: imports {name}, which is below {room}", path.display());
        }
    }
}

#[test]
fn unsafe_has_few_rooms() {
    for (room, path, code) in files() {
        let holds = ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| code.contains(word));
        assert!(!holds || UNSAFE.contains(&room.as_str()), "{}: unsafe", path.display());
    }
}

#[test]
fn one_room_knows_the_instruction_sets() {
    for (room, path, code) in files() {
        let knows = ["pulp::", "core::arch", "target_feature"].iter().any(|word| code.contains(word));
        assert!(!knows || room == "isa", "{}: an instruction set", path.display());
    }
}
