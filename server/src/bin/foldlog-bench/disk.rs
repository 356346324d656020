//! F0: what the device itself needs to make 4 KiB durable, written into a file that is zero-filled already.

use std::{
    fs::{File, OpenOptions},
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
    time::Instant,
};

use anyhow::Context as _;

use crate::load::Measured;

const BLOCK: usize = 4096;
const BLOCKS: usize = 1_000;

/// Writes and syncs one block after the other.
pub fn write_and_sync(folder: &Path) -> anyhow::Result<Measured> {
    let path = folder.join("f0");
    let mut file = zero_filled(&path).with_context(|| format!("cannot prepare {}", path.display()))?;
    file.seek(SeekFrom::Start(0))?;
    let block = [7; BLOCK];
    let mut times = Vec::with_capacity(BLOCKS);
    let began = Instant::now();
    for _ in 0..BLOCKS {
        let sent = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(sent.elapsed());
    }
    let measured = Measured::new(times, began.elapsed());
    std::fs::remove_file(&path)?;
    measured
}

fn zero_filled(path: &Path) -> std::io::Result<File> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    for _ in 0..BLOCKS {
        file.write_all(&[0; BLOCK])?;
    }
    file.sync_all()?;
    Ok(file)
}
