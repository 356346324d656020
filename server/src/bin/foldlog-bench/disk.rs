//! What the device itself needs to make bytes durable, written into a file that is zero-filled already. F0 is 4 KiB.

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
/// Bytes of a file of larger blocks, and how much is written of them.
const LARGE: usize = 64 << 20;
const WRITTEN: usize = 512 << 20;

/// A file of zeros, of which one block after the other is written and synced, round and round.
pub struct Blocks {
    file: File,
    block: Vec<u8>,
    count: usize,
    next: usize,
}

impl Blocks {
    /// Makes a file of blocks of 4 KiB.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        Self::of(path, BLOCK, BLOCKS)
    }

    fn of(path: &Path, block: usize, count: usize) -> anyhow::Result<Self> {
        let file = zero_filled(path, block * count).with_context(|| format!("cannot prepare {}", path.display()))?;
        Ok(Self { file, block: vec![7; block], count, next: count })
    }

    /// Writes and syncs the next block.
    pub fn write_and_sync(&mut self) -> std::io::Result<()> {
        if self.next == self.count {
            self.file.rewind()?;
            self.next = 0;
        }
        self.next += 1;
        self.file.write_all(&self.block)?;
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

/// Bytes a second in blocks of this size, each synced before the next.
pub fn throughput(folder: &Path, block: usize) -> anyhow::Result<f64> {
    let path = folder.join("throughput");
    let mut blocks = Blocks::of(&path, block, LARGE / block)?;
    let began = Instant::now();
    for _ in 0..WRITTEN / block {
        blocks.write_and_sync()?;
    }
    let took = began.elapsed();
    std::fs::remove_file(&path)?;
    #[expect(clippy::cast_precision_loss, reason = "a size")]
    Ok(WRITTEN as f64 / took.as_secs_f64())
}

fn zero_filled(path: &Path, bytes: usize) -> std::io::Result<File> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    for _ in 0..bytes / BLOCK {
        file.write_all(&[0; BLOCK])?;
    }
    file.sync_all()?;
    Ok(file)
}
