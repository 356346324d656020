//! Lines of an input as they come, bounded, and whether another one is there already.

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, BufReader};

/// Longest line: an event may be 1 MiB and its payload base64 or escaped.
const MAX_LINE_BYTES: usize = 8 << 20;

/// What is read at once, and so about as much as is appended at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Lines with their numbers.
#[derive(Debug)]
pub struct Lines<R> {
    input: BufReader<R>,
    line: Vec<u8>,
    number: u64,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// The lines of `input`.
    pub fn new(input: R) -> Self {
        Self { input: BufReader::with_capacity(BUFFER_BYTES, input), line: Vec::new(), number: 0 }
    }

    /// Number of the last line, from 1.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Whether the next line can be had without waiting.
    pub fn has_ready(&self) -> bool {
        self.input.buffer().contains(&b'\n')
    }

    /// The next line without its end; none after the last.
    ///
    /// # Errors
    /// What is wrong with the input or the line.
    pub async fn next(&mut self) -> Result<Option<&str>, String> {
        self.line.clear();
        self.number += 1;
        loop {
            let part = fill(&mut self.input).await?;
            if part.is_empty() && self.line.is_empty() {
                return Ok(None);
            }
            let end = part.iter().position(|byte| *byte == b'\n');
            let taken = part.get(..end.unwrap_or(part.len())).unwrap_or_default();
            if self.line.len() + taken.len() > MAX_LINE_BYTES {
                return Err(format!("longer than {MAX_LINE_BYTES} bytes"));
            }
            self.line.extend_from_slice(taken);
            let (used, is_last) = (taken.len() + usize::from(end.is_some()), part.is_empty());
            self.input.consume(used);
            if end.is_some() || is_last {
                break;
            }
        }
        // A byte order mark may open a file.
        let line = if self.number == 1 { self.line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.line) } else { &self.line };
        std::str::from_utf8(line).map(|line| Some(line.trim_end_matches('\r'))).map_err(|error| format!("not UTF-8: {error}"))
    }
}

async fn fill<R: AsyncBufRead + Unpin>(input: &mut R) -> Result<&[u8], String> {
    input.fill_buf().await.map_err(|error| format!("failed to read the input: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(input: &[u8]) -> Vec<Result<String, String>> {
        let mut lines = Lines::new(input);
        let mut all = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some(line)) => all.push(Ok(line.to_owned())),
                Ok(None) => return all,
                Err(error) => {
                    all.push(Err(error));
                    return all;
                }
            }
        }
    }

    #[tokio::test]
    async fn lines_end_as_they_may() {
        let lines = all(b"\xef\xbb\xbfone\r\n\ntwo\nlast").await;
        assert_eq!(lines, ["one", "", "two", "last"].map(|line| Ok(line.to_owned())));
        assert_eq!(all(b"").await, []);
        assert_eq!(all(b"\n").await, [Ok(String::new())]);
    }

    #[tokio::test]
    async fn what_is_no_text_or_too_long_is_refused() {
        assert!(all(b"a\xff\n").await[0].as_ref().unwrap_err().contains("not UTF-8"));
        assert!(all(&vec![b'x'; MAX_LINE_BYTES + 1]).await[0].as_ref().unwrap_err().contains("longer than"));
        assert_eq!(all(&vec![b'x'; MAX_LINE_BYTES]).await[0].as_ref().unwrap().len(), MAX_LINE_BYTES);
    }

    #[tokio::test]
    async fn what_is_buffered_is_ready() {
        let mut lines = Lines::new(&b"one\ntwo\nthr"[..]);
        assert_eq!(lines.next().await, Ok(Some("one")));
        assert!(lines.has_ready());
        assert_eq!(lines.next().await, Ok(Some("two")));
        assert!(!lines.has_ready());
    }
}
