//! Patterns compiled once: a thread keeps the last few that it was given.

use std::rc::Rc;

/// Patterns that a thread keeps.
const KEPT: usize = 16;

/// What texts were compiled into, the newest use last; what is no pattern is kept as such.
pub(super) struct Compiled<T> {
    kept: Vec<(String, Option<Rc<T>>)>,
}

impl<T> Compiled<T> {
    pub(super) const fn new() -> Self {
        Self { kept: Vec::new() }
    }

    /// What a text is compiled into; none if that fails.
    pub(super) fn get(&mut self, text: &str, compile: impl FnOnce(&str) -> Option<T>) -> Option<Rc<T>> {
        if let Some((last, compiled)) = self.kept.last()
            && last == text
        {
            return compiled.clone();
        }
        let found = self.kept.iter().position(|(kept, _)| kept == text);
        let entry = match found {
            Some(at) => self.kept.remove(at),
            None => (text.to_owned(), compile(text).map(Rc::new)),
        };
        if self.kept.len() >= KEPT {
            self.kept.remove(0);
        }
        let compiled = entry.1.clone();
        self.kept.push(entry);
        compiled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_compiled_once_while_it_is_among_the_last_used() {
        let (mut compiled, mut times) = (Compiled::new(), 0);
        let mut get = |text: &str| {
            compiled.get(text, |text| {
                times += 1;
                text.parse::<usize>().ok()
            })
        };
        for _ in 0..3 {
            for number in 0..KEPT {
                assert_eq!(get(&number.to_string()).as_deref(), Some(&number));
            }
        }
        assert!(get("no number").is_none() && get("no number").is_none());
        assert_eq!(times, KEPT + 1);
    }
}
