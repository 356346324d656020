//! What a plan looks like to people: one line a part, what it reads from below it.

use std::fmt;

/// A part of a plan and what it reads from.
#[derive(Debug)]
pub(super) struct Tree {
    text: String,
    inputs: Vec<Tree>,
}

impl Tree {
    /// A part that reads from these.
    pub(super) const fn new(text: String, inputs: Vec<Self>) -> Self {
        Self { text, inputs }
    }

    fn draw(&self, f: &mut fmt::Formatter<'_>, before: &str) -> fmt::Result {
        f.write_str(&self.text)?;
        for (place, input) in self.inputs.iter().enumerate() {
            let is_last = place + 1 == self.inputs.len();
            let (branch, trunk) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            write!(f, "\n{before}{branch}")?;
            input.draw(f, &format!("{before}{trunk}"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.draw(f, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_stand_below_what_reads_them() {
        let leaf = |text: &str| Tree::new(text.to_owned(), Vec::new());
        let join = Tree::new("join".to_owned(), vec![Tree::new("filter".to_owned(), vec![leaf("left")]), leaf("right")]);
        let drawn = Tree::new("sink".to_owned(), vec![join]).to_string();
        assert_eq!(drawn, "sink\n└─ join\n   ├─ filter\n   │  └─ left\n   └─ right");
    }
}
