//! Generates messages and services from `foldlog/v1/*.proto`, without protoc, and keeps their descriptors for reflection.

use std::{env, error::Error, path::Path};

use prost::Message as _;

const FILES: [&str; 6] = [
    "foldlog/v1/common.proto",
    "foldlog/v1/events.proto",
    "foldlog/v1/topics.proto",
    "foldlog/v1/query.proto",
    "foldlog/v1/groups.proto",
    "foldlog/v1/admin.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = env::var("OUT_DIR")?;
    #[expect(clippy::disallowed_methods, reason = "a build script has no Disk")]
    std::fs::write(Path::new(&out).join("foldlog.v1.bin"), descriptors.encode_to_vec())?;
    // Payloads stay slices of the message they came in.
    tonic_prost_build::configure().bytes(".").btree_map(".").codec_path("crate::codec::Codec").compile_fds(descriptors)?;
    Ok(())
}
