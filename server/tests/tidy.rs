//! The arrows between the crates are those that are drawn in `ARCHITECTURE.md`, and heavy dependencies stay with their owner.
//!
//! Manifests, sources and the lock file are read; the check itself is tried on manifests that must not pass.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use toml::{Table, Value};

/// Crate, its folder, and the crates it may import.
const ARROWS: [(&str, &str, &[&str]); 6] = [
    ("foldlog-log", "log", &[]),
    ("foldlog-query", "query", &["foldlog-log"]),
    ("foldlog-proto", "proto", &[]),
    ("foldlog-sdk", "sdk", &["foldlog-proto"]),
    ("foldlog-server", "server", &["foldlog-log", "foldlog-query", "foldlog-proto", "foldlog-sdk"]),
    ("bank_account", "examples/bank_account", &["foldlog-sdk"]),
];

/// Dependencies (by prefix) that only their owners may name.
const OWNED: [(&str, &[&str]); 7] = [
    ("datafusion", &["foldlog-query"]),
    ("arrow", &["foldlog-query"]),
    ("sled", &["foldlog-query"]),
    ("tonic", &["foldlog-server", "foldlog-sdk", "foldlog-proto"]),
    ("axum", &["foldlog-server"]),
    ("clap", &["foldlog-server"]),
    ("crc32c", &["foldlog-log"]),
];

/// What must not be anywhere below a crate, however deep.
const NEVER_BELOW: [(&str, &[&str]); 3] = [
    ("foldlog-log", &["datafusion", "arrow", "sled", "tonic", "prost", "axum", "clap"]),
    ("foldlog-proto", &["datafusion", "arrow", "sled", "foldlog-log"]),
    ("foldlog-sdk", &["datafusion", "arrow", "sled", "foldlog-log"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[expect(clippy::disallowed_methods, reason = "this test reads the repository itself")]
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[expect(clippy::disallowed_methods, reason = "this test reads the repository itself")]
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Packages that a manifest names, in whatever table and under whatever name.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    fn walk(table: &Table, found: &mut BTreeSet<String>) {
        for (key, value) in table {
            let Value::Table(inner) = value else { continue };
            if key.ends_with("dependencies") {
                for (name, how) in inner {
                    let package = how.get("package").and_then(Value::as_str);
                    found.insert(package.unwrap_or(name).to_owned());
                }
            } else {
                walk(inner, found);
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&manifest.parse().unwrap(), &mut found);
    found
}

/// What is wrong with the manifest of a crate.
fn faults(name: &str, may_import: &[&str], manifest: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for dependency in dependencies(manifest) {
        let ours = dependency.starts_with("foldlog");
        if ours && !may_import.contains(&dependency.as_str()) && dependency != name {
            faults.push(format!("{name} must not import {dependency}"));
        }
        for (owned, owners) in OWNED {
            let is_it = dependency == owned || dependency.strip_prefix(owned).is_some_and(|rest| rest.starts_with('-'));
            if is_it && !owners.contains(&name) {
                faults.push(format!("{name} must not know {dependency}; it belongs to {}", owners.join(", ")));
            }
        }
    }
    faults
}

#[test]
fn manifests_have_only_the_arrows_that_are_drawn() {
    for (name, folder, may_import) in ARROWS {
        let manifest = read(&root().join(folder).join("Cargo.toml"));
        assert_eq!(faults(name, may_import, &manifest), Vec::<String>::new());
    }
}

#[test]
fn every_member_of_the_workspace_is_checked() {
    let workspace: Table = read(&root().join("Cargo.toml")).parse().unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let members: BTreeSet<&str> = members.iter().filter_map(Value::as_str).collect();
    assert_eq!(members, ARROWS.iter().map(|(_, folder, _)| *folder).collect());
}

#[test]
fn sources_name_only_crates_they_may_import() {
    for (name, folder, may_import) in ARROWS {
        let mut files = Vec::new();
        sources(&root().join(folder), &mut files);
        assert!(!files.is_empty(), "{folder} has no sources");
        for file in files.iter().filter(|file| !file.ends_with("tidy.rs")) {
            let text = read(file);
            for (other, ..) in ARROWS.iter().filter(|(other, ..)| other.starts_with("foldlog-")) {
                let path = format!("{}::", other.replace('-', "_"));
                let allowed = may_import.contains(other) || *other == name;
                assert!(allowed || !text.contains(&path), "{} names {other}, which {name} must not import", file.display());
            }
            for (owned, owners) in OWNED {
                let used = text.lines().any(|line| line.trim_start_matches("pub ").starts_with(&format!("use {owned}::")));
                assert!(!used || owners.contains(&name), "{} names {owned}, which {name} must not know", file.display());
            }
        }
    }
}

#[test]
fn light_crates_build_without_the_heavy_ones() {
    let lock: Table = read(&root().join("Cargo.lock")).parse().unwrap();
    let mut below: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in lock["package"].as_array().unwrap() {
        let named = package.get("dependencies").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        // "name" or "name version": versions of one name are taken together.
        let names = named.map(|dependency| dependency.split(' ').next().unwrap());
        below.entry(package["name"].as_str().unwrap()).or_default().extend(names);
    }
    for (name, never) in NEVER_BELOW {
        let mut seen = BTreeSet::from([name]);
        let mut open = vec![name];
        while let Some(next) = open.pop() {
            open.extend(below[next].iter().copied().filter(|dependency| seen.insert(dependency)));
        }
        assert!(seen.len() > 5, "{name} is in the lock file");
        for package in never {
            assert!(!seen.contains(package), "{name} builds {package}");
        }
    }
}

#[test]
fn the_check_objects_to_forbidden_manifests() {
    let objects = |name: &str, may_import: &[&str], manifest: &str| assert_eq!(faults(name, may_import, manifest).len(), 1, "{manifest}");
    objects("foldlog-log", &[], "[dependencies]\nfoldlog-query.workspace = true\nbytes = '1'\n");
    objects("foldlog-query", &["foldlog-log"], "[dependencies]\nfoldlog-log.workspace = true\nfoldlog-server = { path = '../server' }\n");
    objects("foldlog-sdk", &["foldlog-proto"], "[dev-dependencies]\nfoldlog-server.workspace = true\n");
    objects("foldlog-proto", &[], "[build-dependencies]\nfoldlog-log = '1'\n");
    objects("foldlog-log", &[], "[dependencies]\nengine = { package = 'foldlog-query', version = '1' }\n");
    objects("foldlog-log", &[], "[target.'cfg(unix)'.dependencies]\nfoldlog-sdk = '1'\n");
    objects("foldlog-server", &[], "[dependencies]\ndatafusion-functions.workspace = true\n");
    objects("foldlog-log", &[], "[dependencies]\ntonic = '0.14'\n");
    objects("foldlog-server", &[], "[dependencies]\nsled = '0.34'\n");
    assert_eq!(faults("foldlog-query", &["foldlog-log"], "[dependencies]\nfoldlog-log = '1'\nsled = '1'\n"), Vec::<String>::new());
}

/// Names in backticks behind each "Held by:", up to the end of its paragraph.
fn holders(contract: &str) -> Vec<&str> {
    let paragraphs = contract.split("\n\n").filter_map(|paragraph| paragraph.split_once("Held by:"));
    paragraphs.flat_map(|(_, named)| named.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_test_that_the_contract_names_exists() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let text: String = files.iter().map(|file| read(file)).collect();
    let contract = read(&root().join("CONTRACT.md"));
    let named = holders(&contract);
    assert!(named.len() > 50, "the contract names {} tests", named.len());
    let missing = |names: Vec<&str>| -> Vec<String> {
        names.into_iter().filter(|name| !text.contains(&format!("fn {name}("))).map(str::to_owned).collect()
    };
    assert_eq!(missing(named), Vec::<String>::new());
    assert_eq!(missing(holders("C0 Nothing. Held by: `no_such_test`.\n\nC0.")), ["no_such_test"]);
}
