//! Completion: which words may stand where the cursor is.
//!
//! Pure but for the question for names. What stands before the cursor decides; what follows it is left alone.

use clap::ValueEnum as _;
use foldlog_query::sql::{
    lexemes::{KEYWORDS, Lexeme, Part, parts},
    parser::STATEMENTS,
};
use reedline::{Completer, CompletionResult, Span, Suggestion};

use super::{
    command::COMMANDS,
    names::{Asking, Names},
};
use crate::cli::output::{Format, text::visible};

/// Most suggestions at once.
const MOST: usize = 200;

/// Completes what is typed.
pub struct Words {
    /// Where names come from.
    pub asking: Asking,
}

impl Completer for Words {
    fn complete(&mut self, line: &str, pos: usize) -> CompletionResult {
        let before = line.get(..pos).unwrap_or(line);
        let words = parts(line).into_iter().filter(|part| matches!(part.lexeme, Lexeme::Name | Lexeme::Keyword | Lexeme::QuotedName));
        let words = words.map(|part| bare(part.text).to_owned()).collect();
        let names = self.asking.names(words);
        let (start, found) = candidates(before, &names);
        let suggestion = |candidate: Candidate| Suggestion {
            description: Some(candidate.kind.to_owned()),
            display_override: Some(visible(&candidate.text)),
            span: Span::new(start, before.len()),
            append_whitespace: candidate.ends_word,
            value: candidate.text,
            ..Suggestion::default()
        };
        CompletionResult::fresh(found.into_iter().take(MOST).map(suggestion).collect::<Vec<_>>())
    }
}

/// What may stand at the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    text: String,
    /// What it is, for people.
    kind: &'static str,
    /// Whether a space follows it.
    ends_word: bool,
}

/// A word's meaning and whether it is one of the language, which follows the case of what was typed.
enum Offer<'a> {
    Word(&'a str),
    Name(&'a str, &'static str),
    Function(&'a str),
    /// As it stands.
    Literal(&'a str, &'static str),
}

/// Where the word at the end of the text begins, and what it may become.
pub fn candidates(before: &str, names: &Names) -> (usize, Vec<Candidate>) {
    let indent = before.len() - before.trim_start().len();
    if before.get(indent..).is_some_and(|line| line.starts_with('\\')) {
        return of_command(before, indent, names);
    }
    let all = parts(before);
    let statement =
        all.iter().rposition(|part| part.lexeme == Lexeme::Semicolon).map_or(&all[..], |at| all.get(at + 1..).unwrap_or_default());
    let meaning: Vec<&Part<'_>> = statement.iter().filter(|part| !matches!(part.lexeme, Lexeme::Space)).collect();
    let is_open = |part: &Part<'_>| match part.lexeme {
        Lexeme::Text | Lexeme::QuotedName => part.unfinished,
        Lexeme::Name | Lexeme::Keyword => part.start + part.text.len() == before.len(),
        _ => false,
    };
    let (typed, context) = match meaning.split_last() {
        // Nothing is completed in a comment.
        Some((last, _))
            if last.lexeme == Lexeme::Comment && (last.unfinished || !last.text.ends_with('\n') && last.text.starts_with("--")) =>
        {
            return (before.len(), Vec::new());
        }
        Some((last, rest)) if is_open(last) => (Some(**last), rest),
        _ => (None, &meaning[..]),
    };
    let start = typed.map_or(before.len(), |part| part.start);
    let prefix = before.get(start..).unwrap_or_default();
    if typed.is_some_and(|part| part.lexeme == Lexeme::Text) {
        return (start, fitting(in_text(context, names), prefix, names));
    }
    (start, fitting(offers(context, names), prefix, names))
}

fn of_command<'a>(before: &'a str, indent: usize, names: &'a Names) -> (usize, Vec<Candidate>) {
    let Some(space) = before.get(indent..).and_then(|line| line.find(char::is_whitespace)) else {
        let offers = COMMANDS.iter().map(|(name, _, does)| Offer::Literal(name, does));
        return (indent, fitting(offers.collect(), before.get(indent..).unwrap_or_default(), names));
    };
    let command = before.get(indent..indent + space).unwrap_or_default();
    let start = before.rfind(char::is_whitespace).map_or(before.len(), |at| at + 1);
    let offers: Vec<Offer<'_>> = match command {
        "\\d" | "\\d+" => sources(names),
        "\\df" => names.functions.iter().map(|name| Offer::Literal(name, "function")).collect(),
        "\\h" => STATEMENTS.iter().map(|word| Offer::Word(word)).collect(),
        "\\o" => Format::value_variants().iter().map(|format| Offer::Literal(format.as_str(), "format")).collect(),
        "\\x" => ["on", "off", "auto"].map(|word| Offer::Literal(word, "")).into(),
        "\\timing" | "\\pager" => ["on", "off"].map(|word| Offer::Literal(word, "")).into(),
        _ => Vec::new(),
    };
    (start, fitting(offers, before.get(start..).unwrap_or_default(), names))
}

/// What may stand in a string that has no end yet.
fn in_text<'a>(context: &[&Part<'_>], names: &'a Names) -> Vec<Offer<'a>> {
    let upper = |part: Option<&&Part<'_>>| part.map(|part| part.text.to_uppercase()).unwrap_or_default();
    let (last, before) = (upper(context.last()), upper(context.iter().rev().nth(1)));
    let literal = |all: &'a [String], kind| all.iter().map(move |name| Offer::Literal(name, kind)).collect();
    match (last.as_str(), before.as_str()) {
        ("SET" | "UNSET", _) => literal(&names.settings, "setting"),
        ("=", "TOPIC" | "KAFKA_TOPIC") => literal(&names.topics, "topic"),
        ("=", "FORMAT" | "KEY_FORMAT" | "VALUE_FORMAT") => {
            ["json", "delimited", "kafka", "none"].map(|format| Offer::Literal(format, "format")).into()
        }
        _ => Vec::new(),
    }
}

/// What may stand behind these parts.
fn offers<'a>(context: &[&Part<'_>], names: &'a Names) -> Vec<Offer<'a>> {
    let upper: Vec<String> = context.iter().rev().take(3).map(|part| part.text.to_uppercase()).collect();
    let back = |n: usize| upper.get(n).map_or("", String::as_str);
    let words = |words: &'static [&'static str]| words.iter().map(|word| Offer::Word(word)).collect::<Vec<_>>();
    let queries = || names.queries.iter().map(|id| Offer::Name(id, "query")).chain([Offer::Word("ALL")]).collect();
    match (back(1), back(0)) {
        (_, "") => words(&STATEMENTS),
        (_, ".") => columns_of(context, names),
        ("DROP" | "ALTER", "STREAM" | "TABLE") => sources(names),
        (_, "CREATE") => words(&["STREAM", "TABLE", "TYPE", "OR REPLACE", "SOURCE"]),
        (_, "DROP") => words(&["STREAM", "TABLE", "TYPE"]),
        ("DROP", "TYPE") => names.types.iter().map(|name| Offer::Name(name, "type")).collect(),
        (_, "ALTER") => words(&["STREAM", "TABLE"]),
        (_, "SHOW" | "LIST") => {
            words(&["STREAMS", "TABLES", "QUERIES", "TOPICS", "ALL TOPICS", "FUNCTIONS", "TYPES", "PROPERTIES", "VARIABLES"])
        }
        ("SHOW" | "LIST" | "ALL", "STREAMS" | "TABLES" | "QUERIES" | "TOPICS") => words(&["EXTENDED"]),
        (_, "DESCRIBE") => sources(names).into_iter().chain(words(&["FUNCTION"])).collect(),
        ("DESCRIBE", "FUNCTION") => names.functions.iter().map(|name| Offer::Literal(name, "function")).collect(),
        (_, "TERMINATE" | "PAUSE" | "RESUME") => queries(),
        (_, "EXPLAIN") => names.queries.iter().map(|id| Offer::Name(id, "query")).chain(words(&["SELECT", "CREATE", "INSERT"])).collect(),
        (_, "FROM" | "JOIN" | "PRINT") => sources(names),
        ("INSERT", "INTO") => sources(names),
        ("", "INSERT") => words(&["INTO"]),
        ("", "DELETE") => words(&["FROM"]),
        ("", "SET" | "UNSET") => names.settings.iter().map(|name| Offer::Literal(name, "setting")).collect(),
        (_, "EMIT") => words(&["CHANGES"]),
        (_, "GROUP" | "ORDER" | "PARTITION") => words(&["BY"]),
        _ => anything(names),
    }
}

/// Columns, words, functions, and whatever else has a name.
fn anything(names: &Names) -> Vec<Offer<'_>> {
    let mut offers: Vec<Offer<'_>> = Vec::new();
    // What is selected stands before what it is selected from: all columns that are known are offered.
    offers.extend(names.columns.values().flatten().map(|name| Offer::Name(name, "column")));
    offers.extend(KEYWORDS.iter().map(|word| Offer::Word(word)));
    offers.extend(names.functions.iter().map(|name| Offer::Function(name)));
    offers.extend(sources(names));
    offers.extend(names.types.iter().map(|name| Offer::Name(name, "type")));
    offers
}

/// Columns of the source, or of the one with the alias, before the dot.
fn columns_of<'a>(context: &[&Part<'_>], names: &'a Names) -> Vec<Offer<'a>> {
    let Some(named) = context.iter().rev().nth(1).map(|part| bare(part.text)) else { return Vec::new() };
    let by_name = names.columns.iter().find(|(name, _)| name.eq_ignore_ascii_case(named));
    let columns = match by_name {
        Some((_, columns)) => columns.iter().collect::<Vec<_>>(),
        // An alias: of whatever the statement reads.
        None => names.columns.values().flatten().collect(),
    };
    columns.into_iter().map(|name| Offer::Name(name, "column")).collect()
}

fn sources(names: &Names) -> Vec<Offer<'_>> {
    let topics = names.topics.iter().filter(|topic| !names.sources.contains(topic));
    let sources = names.sources.iter().map(|name| Offer::Name(name, "stream or table"));
    sources.chain(topics.map(|name| Offer::Name(name, "topic"))).collect()
}

/// Those that begin with what was typed, in order, each once, as they would be written there.
fn fitting(offers: Vec<Offer<'_>>, prefix: &str, names: &Names) -> Vec<Candidate> {
    let quote = prefix.chars().next().filter(|c| matches!(c, '\'' | '"' | '`'));
    let wanted = quote.map_or(prefix, |quote| prefix.trim_start_matches(quote)).to_lowercase();
    let lower = !prefix.is_empty() && !prefix.chars().any(char::is_uppercase);
    let mut found: Vec<Candidate> = Vec::new();
    for offer in offers {
        let (bare, kind) = match offer {
            Offer::Word(word) => (word, "keyword"),
            Offer::Name(name, kind) | Offer::Literal(name, kind) => (name, kind),
            Offer::Function(name) => (name, "function"),
        };
        if !bare.to_lowercase().starts_with(&wanted) {
            continue;
        }
        let text = match (&offer, quote) {
            (Offer::Word(_) | Offer::Function(_), Some(_)) => continue,
            (Offer::Word(word), None) if lower => word.to_lowercase(),
            (Offer::Word(word), None) => (*word).to_owned(),
            (Offer::Function(name), None) if !lower && !prefix.is_empty() => name.to_uppercase(),
            (Offer::Function(name), None) => (*name).to_owned(),
            (Offer::Name(name, _), Some(quote)) => format!("{quote}{name}{quote}"),
            (Offer::Name(name, _), None) => written(name, names.upper),
            (Offer::Literal(name, "setting"), None) => format!("'{name}'"),
            (Offer::Literal(name, _), None) => (*name).to_owned(),
            (Offer::Literal(name, _), Some(quote)) => format!("{quote}{name}{quote}"),
        };
        if text != prefix && found.iter().all(|other| other.text != text) {
            found.push(Candidate { text, kind, ends_word: matches!(offer, Offer::Word(_)) });
        }
    }
    found
}

/// A name as it is to be written so that the dialect reads it as it is.
fn written(name: &str, upper: bool) -> String {
    let is_kept = |c: char| c == '_' || c.is_ascii_digit() || if upper { c.is_ascii_uppercase() } else { c.is_ascii_lowercase() };
    let is_plain = name.chars().all(is_kept) && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty();
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn bare(word: &str) -> &str {
    word.trim_matches(['"', '`'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let texts = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        Names {
            upper: false,
            sources: texts(&["orders", "Odd One", "totals"]),
            topics: texts(&["orders", "raw.events"]),
            queries: texts(&["totals"]),
            types: texts(&["address"]),
            functions: texts(&["sum", "substring"]),
            settings: texts(&["sql.dialect", "auto.offset.reset"]),
            columns: [("orders".to_owned(), texts(&["item", "amount"]))].into(),
        }
    }

    fn found(before: &str) -> Vec<String> {
        candidates(before, &names()).1.into_iter().map(|candidate| candidate.text).collect()
    }

    #[test]
    fn a_statement_begins_with_its_word_in_the_case_of_who_types() {
        assert_eq!(found("SEL"), ["SELECT"]);
        assert_eq!(found("sel"), ["select"]);
        assert_eq!(found("SELECT 1; dr"), ["drop"]);
        assert_eq!(found("SHOW ").len(), 9);
        assert_eq!(found("DROP STREAM o"), ["orders", "\"Odd One\""]);
    }

    #[test]
    fn names_stand_where_they_may_and_are_quoted_where_they_must() {
        assert_eq!(found("SELECT * FROM "), ["orders", "\"Odd One\"", "totals", "\"raw.events\""]);
        assert_eq!(found("SELECT * FROM ra"), ["\"raw.events\""]);
        assert_eq!(found("SELECT * FROM \"ra"), ["\"raw.events\""]);
        assert_eq!(found("TERMINATE to"), ["totals"]);
        assert_eq!(found("SELECT am"), ["amount"]);
        assert_eq!(found("SELECT o.it"), ["item"]);
        assert_eq!(found("SELECT SU"), ["SUM", "SUBSTRING"]);
        assert_eq!(found("DROP TYPE "), ["address"]);
        let (start, _) = candidates("SELECT * FROM ord", &names());
        assert_eq!(start, 14);
        let upper = Names { upper: true, sources: vec!["ORDERS".to_owned()], ..Names::default() };
        assert_eq!(candidates("SELECT * FROM o", &upper).1[0].text, "ORDERS");
    }

    #[test]
    fn strings_are_completed_where_it_is_known_what_they_are() {
        assert_eq!(found("SET 'sql"), ["'sql.dialect'"]);
        assert_eq!(found("SET "), ["'sql.dialect'", "'auto.offset.reset'"]);
        assert_eq!(found("CREATE STREAM x (a INT) WITH (topic = 'o"), ["'orders'"]);
        assert_eq!(found("CREATE STREAM x (a INT) WITH (format='"), ["'json'", "'delimited'", "'kafka'", "'none'"]);
        assert!(found("SELECT 'a").is_empty());
    }

    #[test]
    fn nothing_is_completed_in_a_comment() {
        assert!(found("SELECT -- fro").is_empty());
        assert!(found("SELECT /* fro").is_empty());
        assert!(found("SELECT /* x */ fro").contains(&"from".to_owned()));
    }

    #[test]
    fn commands_are_completed_with_what_they_take() {
        assert_eq!(found("\\tim"), ["\\timing"]);
        assert_eq!(found("\\d ord"), ["orders"]);
        assert_eq!(found("\\o js"), ["json", "jsonl"]);
        assert_eq!(found("\\x "), ["on", "off", "auto"]);
        assert_eq!(found("\\h drop"), Vec::<String>::new());
        assert_eq!(found("\\h dro"), ["drop"]);
    }
}
