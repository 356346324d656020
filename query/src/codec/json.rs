//! Finds the wanted fields of a JSON object without building what nobody wants.
//!
//! The whole payload is checked against RFC 8259 (so whether a row exists does not depend on the columns wanted), but only
//! spans of the wanted fields are kept; its text is checked once, and spans are cut from what was checked. Rules: the last of several fields with one name counts; a field named exactly as the
//! column is preferred to one that differs in the case of ASCII letters; nesting beyond [`MAX_DEPTH`] is refused.

use std::{borrow::Cow, fmt, sync::Arc};

use hashbrown::HashMap;

/// Deepest nesting of objects and arrays.
pub(super) const MAX_DEPTH: u32 = 128;

/// Most field names that are remembered, and most places of one object.
const REMEMBERED_NAMES: usize = 1024;

/// Why a payload is not a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    what: &'static str,
    at: usize,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

/// What stands in a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    True,
    False,
    Number,
    /// Between its quotes, without escapes.
    Plain,
    /// Between its quotes, with escapes.
    Escaped,
    /// An object or array as written.
    Nested,
}

/// A value as it stands in the payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    pub(super) kind: Kind,
    pub(super) raw: &'a str,
}

#[derive(Clone, Copy)]
struct Span {
    kind: Kind,
    start: usize,
    end: usize,
    exact: bool,
}

/// The wanted field that a name means, and whether it is spelled exactly so.
type Target = Option<(usize, bool)>;

/// The wanted fields, by name, and where they stand in the payload scanned last.
pub(super) struct Fields {
    names: Vec<String>,
    found: Vec<Option<Span>>,
    /// Which name stood at which place of the last object: objects of one topic mostly look alike.
    order: Vec<(Arc<[u8]>, Target)>,
    /// Names that were met, as they are written: where objects of several looks take turns, no name is looked up twice.
    known: HashMap<Arc<[u8]>, Target>,
}

impl Fields {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self { found: vec![None; names.len()], names, order: Vec::new(), known: HashMap::new() }
    }

    /// Forgets what was found.
    pub(super) fn clear(&mut self) {
        self.found.fill(None);
    }

    /// The value of a field in the payload scanned last.
    #[inline]
    pub(super) fn found<'a>(&self, place: usize, payload: &'a str) -> Option<Value<'a>> {
        let span = (*self.found.get(place)?)?;
        Some(Value { kind: span.kind, raw: payload.get(span.start..span.end)? })
    }

    /// Checks a payload and finds the wanted fields; none if it is `null`.
    pub(super) fn scan<'a>(&mut self, payload: &'a [u8]) -> Result<Option<&'a str>, Fault> {
        self.clear();
        let text = text_of(payload)?;
        let mut scan = Scanner { bytes: payload, at: 0 };
        scan.space();
        match scan.peek() {
            Some(b'{') => {
                scan.at += 1;
                self.object(&mut scan)?;
            }
            Some(b'n') => {
                scan.literal(b"null")?;
                scan.end()?;
                return Ok(None);
            }
            Some(_) => return scan.fault("expected {"),
            None => return scan.fault("empty"),
        }
        scan.end()?;
        Ok(Some(text))
    }

    /// Finds the wanted fields of a value inside a payload that was checked already.
    pub(super) fn scan_nested(&mut self, value: Value<'_>) -> Result<(), Fault> {
        self.clear();
        let mut scan = Scanner { bytes: value.raw.as_bytes(), at: 0 };
        if value.kind != Kind::Nested || !scan.take(b'{') {
            return scan.fault("expected {");
        }
        self.object(&mut scan)
    }

    fn object(&mut self, scan: &mut Scanner<'_>) -> Result<(), Fault> {
        scan.space();
        if scan.take(b'}') {
            return Ok(());
        }
        let mut ordinal = 0;
        loop {
            scan.space();
            scan.expect(b'"', "expected a field name")?;
            let target = match self.order.get(ordinal) {
                Some((known, target)) if scan.rest_of_string(known) => *target,
                _ => {
                    let from = scan.at;
                    let escaped = scan.string()?;
                    self.target(ordinal, scan.bytes.get(from..scan.at - 1).unwrap_or_default(), escaped)
                }
            };
            scan.space();
            scan.expect(b':', "expected :")?;
            scan.space();
            let span = scan.value()?;
            if let Some((place, exact)) = target
                && let Some(slot) = self.found.get_mut(place)
                && slot.is_none_or(|before| exact || !before.exact)
            {
                *slot = Some(Span { exact, ..span });
            }
            ordinal += 1;
            scan.space();
            if scan.take(b',') {
                continue;
            }
            return scan.expect(b'}', "expected , or }");
        }
    }

    /// Which wanted field a name means, and whether it is spelled exactly so; it is another one than stood at this place before.
    fn target(&mut self, ordinal: usize, name: &[u8], escaped: bool) -> Target {
        let (name, target) = match self.known.get_key_value(name) {
            Some((name, target)) => (Arc::clone(name), *target),
            None => self.meet(name, escaped)?,
        };
        if let Some(slot) = self.order.get_mut(ordinal) {
            *slot = (name, target);
        } else if self.order.len() < REMEMBERED_NAMES {
            self.order.push((name, target));
        }
        target
    }

    fn meet(&mut self, name: &[u8], escaped: bool) -> Option<(Arc<[u8]>, Target)> {
        let plain = std::str::from_utf8(name).ok()?;
        let target = if escaped { unescape(plain).and_then(|name| self.look_up(&name)) } else { self.look_up(plain) };
        let name: Arc<[u8]> = name.into();
        if self.known.len() < REMEMBERED_NAMES {
            self.known.insert(Arc::clone(&name), target);
        }
        Some((name, target))
    }

    fn look_up(&self, name: &str) -> Target {
        let exact = self.names.iter().position(|known| known == name).map(|place| (place, true));
        exact.or_else(|| self.names.iter().position(|known| known.eq_ignore_ascii_case(name)).map(|place| (place, false)))
    }
}

fn text_of(payload: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(payload).map_err(|fault| Fault { what: "invalid UTF-8", at: fault.valid_up_to() })
}

/// Checks a payload that is one value, and finds it.
pub(super) fn whole(payload: &[u8]) -> Result<Value<'_>, Fault> {
    let text = text_of(payload)?;
    let mut scan = Scanner { bytes: payload, at: 0 };
    scan.space();
    let span = scan.value()?;
    scan.end()?;
    Ok(Value { kind: span.kind, raw: text.get(span.start..span.end).unwrap_or_default() })
}

/// Gives every item of an array inside a payload that was checked already, until `take` has had enough.
pub(super) fn each_item<'a>(value: Value<'a>, mut take: impl FnMut(Value<'a>) -> Result<(), &'static str>) -> Result<(), &'static str> {
    const WRONG: &str = "not an ARRAY";
    let mut scan = Scanner { bytes: value.raw.as_bytes(), at: 0 };
    if value.kind != Kind::Nested || !scan.take(b'[') {
        return Err(WRONG);
    }
    scan.space();
    if scan.take(b']') {
        return Ok(());
    }
    loop {
        scan.space();
        let span = scan.value().map_err(|_| WRONG)?;
        take(span.of(value.raw))?;
        scan.space();
        if !scan.take(b',') {
            return scan.expect(b']', WRONG).map_err(|_| WRONG);
        }
    }
}

/// Gives name and value of every field of an object inside a payload that was checked already, until `take` has had enough.
pub(super) fn each_entry<'a>(
    value: Value<'a>,
    mut take: impl FnMut(Cow<'a, str>, Value<'a>) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    const WRONG: &str = "not a MAP";
    let mut scan = Scanner { bytes: value.raw.as_bytes(), at: 0 };
    if value.kind != Kind::Nested || !scan.take(b'{') {
        return Err(WRONG);
    }
    scan.space();
    if scan.take(b'}') {
        return Ok(());
    }
    loop {
        scan.space();
        let name = scan.value().map_err(|_| WRONG)?.of(value.raw);
        let name = if name.kind == Kind::Escaped {
            Cow::Owned(unescape(name.raw).ok_or("half of a surrogate pair in a string")?)
        } else {
            Cow::Borrowed(name.raw)
        };
        scan.space();
        scan.expect(b':', WRONG).map_err(|_| WRONG)?;
        scan.space();
        let span = scan.value().map_err(|_| WRONG)?;
        take(name, span.of(value.raw))?;
        scan.space();
        if !scan.take(b',') {
            return scan.expect(b'}', WRONG).map_err(|_| WRONG);
        }
    }
}

impl Span {
    /// The value in the text that was scanned.
    fn of(self, text: &str) -> Value<'_> {
        Value { kind: self.kind, raw: text.get(self.start..self.end).unwrap_or_default() }
    }
}

/// Walks over a payload that is UTF-8.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn fault<T>(&self, what: &'static str) -> Result<T, Fault> {
        Err(Fault { what, at: self.at })
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    #[inline]
    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Fault> {
        if self.take(byte) { Ok(()) } else { self.fault(what) }
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.space();
        if self.peek().is_some() { self.fault("something follows it") } else { Ok(()) }
    }

    fn literal(&mut self, word: &'static [u8]) -> Result<(), Fault> {
        if self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            return Ok(());
        }
        self.fault("expected a value")
    }

    /// Passes over one value and says where it stood.
    fn value(&mut self) -> Result<Span, Fault> {
        let start = self.at;
        let kind = match self.peek() {
            Some(b'"') => {
                self.at += 1;
                let kind = if self.string()? { Kind::Escaped } else { Kind::Plain };
                return Ok(Span { kind, start: start + 1, end: self.at - 1, exact: false });
            }
            Some(b'{' | b'[') => {
                self.nested()?;
                Kind::Nested
            }
            _ => self.scalar()?,
        };
        Ok(Span { kind, start, end: self.at, exact: false })
    }

    fn scalar(&mut self) -> Result<Kind, Fault> {
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| Kind::Number),
            Some(b't') => self.literal(b"true").map(|()| Kind::True),
            Some(b'f') => self.literal(b"false").map(|()| Kind::False),
            Some(b'n') => self.literal(b"null").map(|()| Kind::Null),
            _ => self.fault("expected a value"),
        }
    }

    /// Passes over the rest of a string, from after its opening quote to after its closing one, if it is written exactly so.
    #[inline]
    fn rest_of_string(&mut self, written: &[u8]) -> bool {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let is_so = rest.get(written.len()) == Some(&b'"') && rest.starts_with(written);
        self.at += if is_so { written.len() + 1 } else { 0 };
        is_so
    }

    /// Passes over a string, from after its opening quote to after its closing one; whether there was an escape.
    #[inline]
    fn string(&mut self) -> Result<bool, Fault> {
        let mut escaped = false;
        loop {
            // Most of a long text at once, then a word at a time.
            while let Some(chunk) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<32>()) {
                if chunk.iter().fold(false, |any, byte| any | (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\')) {
                    break;
                }
                self.at += 32;
            }
            while let Some(chunk) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
                let special = special_bytes(u64::from_le_bytes(*chunk));
                if special != 0 {
                    self.at += (special.trailing_zeros() / 8) as usize;
                    break;
                }
                self.at += 8;
            }
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                    self.escape()?;
                }
                Some(0..0x20) => return self.fault("control character in a string"),
                Some(_) => self.at += 1,
                None => return self.fault("the string does not end"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                let digits = self.bytes.get(self.at + 1..self.at + 5).unwrap_or_default();
                if digits.len() != 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return self.fault("\\u wants four hexadecimal digits");
                }
                self.at += 5;
                Ok(())
            }
            _ => self.fault("unknown escape"),
        }
    }

    #[inline]
    fn digits(&mut self) -> bool {
        let from = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at > from
    }

    fn number(&mut self) -> Result<(), Fault> {
        self.take(b'-');
        if !self.take(b'0') && !self.digits() {
            return self.fault("expected a digit");
        }
        if self.take(b'.') && !self.digits() {
            return self.fault("expected a digit");
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if !self.digits() {
                return self.fault("expected a digit");
            }
        }
        Ok(())
    }

    /// Passes over an object or array, without recursion: one bit a level says which of the two it is.
    fn nested(&mut self) -> Result<(), Fault> {
        let mut objects: u128 = 0;
        // One level is the object around it.
        let mut depth = 1;
        loop {
            // A value is due here.
            self.space();
            let opened = match self.peek() {
                Some(b'{') => Some(true),
                Some(b'[') => Some(false),
                _ => None,
            };
            if let Some(object) = opened {
                self.at += 1;
                depth += 1;
                if depth > MAX_DEPTH {
                    return self.fault("nested too deep");
                }
                objects = (objects << 1) | u128::from(object);
                self.space();
                if !self.take(if object { b'}' } else { b']' }) {
                    if object {
                        self.name()?;
                    }
                    continue;
                }
                objects >>= 1;
                depth -= 1;
            } else if self.take(b'"') {
                self.string()?;
            } else {
                self.scalar()?;
            }
            // A value is done: go on in what holds it, or close that.
            loop {
                if depth == 1 {
                    return Ok(());
                }
                self.space();
                let object = objects & 1 == 1;
                if self.take(b',') {
                    if object {
                        self.space();
                        self.name()?;
                    }
                    break;
                }
                self.expect(if object { b'}' } else { b']' }, "expected , or the end of what was opened")?;
                objects >>= 1;
                depth -= 1;
            }
        }
    }

    fn name(&mut self) -> Result<(), Fault> {
        self.expect(b'"', "expected a field name")?;
        self.string()?;
        self.space();
        self.expect(b':', "expected :")
    }
}

/// High bits of the bytes that end a run of plain string bytes: quote, backslash, control characters. The lowest one set is
/// exact; higher ones may be wrong.
#[inline]
const fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let quote = word ^ (ONES * b'"' as u64);
    let slash = word ^ (ONES * b'\\' as u64);
    let is_quote = quote.wrapping_sub(ONES) & !quote;
    let is_slash = slash.wrapping_sub(ONES) & !slash;
    let is_control = word.wrapping_sub(ONES * 0x20) & !word;
    (is_quote | is_slash | is_control) & HIGH
}

/// Text of a string that was scanned; none if an escape stands for half a surrogate pair.
pub(super) fn unescape(raw: &str) -> Option<String> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(place) = rest.find('\\') {
        text.push_str(rest.get(..place)?);
        let escape = *rest.as_bytes().get(place + 1)?;
        rest = rest.get(place + 2..)?;
        text.push(match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = hex(&mut rest)?;
                match unit {
                    0xd800..0xdc00 => {
                        rest = rest.strip_prefix("\\u")?;
                        let low = hex(&mut rest)?;
                        if !(0xdc00..0xe000).contains(&low) {
                            return None;
                        }
                        char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00))?
                    }
                    unit => char::from_u32(unit)?,
                }
            }
            plain => char::from(plain),
        });
    }
    text.push_str(rest);
    Some(text)
}

fn hex(rest: &mut &str) -> Option<u32> {
    let unit = u32::from_str_radix(rest.get(..4)?, 16).ok()?;
    *rest = rest.get(4..)?;
    Some(unit)
}
