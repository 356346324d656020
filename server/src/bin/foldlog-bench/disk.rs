//! F0: what the device itself needs to make 4 KiB durable, written into a file that is zero-filled already.

use std::{
    fs::{File, OpenOptions},
    io::{Seek as _, Write as _},
    path::Path,
    time::Instant,
};

use anyhow::Context as _;

use crate::load::Measured;

const BLOCK: usize = 4096;
const BLOCKS: usize = 1_000;

/// A file of zeros, of which one block after the other is written and synced, round and round.
pub struct Blocks {
    file: File,
    next: usize,
}

impl Blocks {
    /// Makes the file.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = zero_filled(path).with_context(|| format!("cannot prepare {}", path.display()))?;
        Ok(Self { file, next: BLOCKS })
    }

    /// Writes and syncs the next block.
    pub fn write_and_sync(&mut self) -> std::io::Result<()> {
        if self.next == BLOCKS {
            self.file.rewind()?;
            self.next = 0;
        }
        self.next += 1;
        self.file.write_all(&[7; BLOCK])?;
        self.file.sync_data()
    }
}

/// Writes and syncs one block after the other.
pub fn write_and_sync(folder: &Path) -> anyhow::Result<Measured> {
    let path = folder.join("f0");
    let mut blocks = Blocks::create(&path)?;
    let mut times = Vec::with_capacity(BLOCKS);
    let began = Instant::now();
    for _ in 0..BLOCKS {
        let sent = Instant::now();
        blocks.write_and_sync()?;
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
