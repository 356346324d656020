//! Functions of URLs, cut as RFC 3986 cuts them (appendix B). A text that is no URL fails its row.

use std::borrow::Cow;

use arrow::array::ArrayRef;
use datafusion::common::Result;

use super::{
    definition::{Definition, form},
    input::{Fault, Input, Made, Str},
};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new(
        "url_decode_param",
        "A text with %XX and + decoded, as in the query of a URL.",
        &[form("text VARCHAR -> VARCHAR", |input| input.map1::<Str, _>(|text| decoded(text, Plus::IsSpace).map(Cow::into_owned)))],
        &[("url_decode_param('a%20b%2Bc')", "a b+c")],
    ),
    Definition::new(
        "url_encode_param",
        "A text encoded for the query of a URL.",
        &[form("text VARCHAR -> VARCHAR", |input| input.map1::<Str, _>(encoded))],
        &[("url_encode_param('a b+c')", "a+b%2Bc")],
    ),
    Definition::new(
        "url_extract_fragment",
        "The fragment of a URL, decoded; NULL if it has none.",
        &[form("url VARCHAR -> VARCHAR", |input| of_url(input, |url| url.decoded(url.fragment)))],
        &[("url_extract_fragment('http://a.com/b#c')", "c")],
    ),
    Definition::new(
        "url_extract_host",
        "The host of a URL; NULL if it has none.",
        &[form("url VARCHAR -> VARCHAR", |input| of_url(input, |url| Ok(url.host().map(str::to_owned))))],
        &[("url_extract_host('http://me@a.com:80/b')", "a.com")],
    ),
    Definition::new(
        "url_extract_parameter",
        "The value of a parameter in the query of a URL, decoded; NULL if it has none of that name.",
        &[form("url VARCHAR, name VARCHAR -> VARCHAR", |input| {
            input.map2::<Str, Str, _>(|url, name| Url::read(url).ok_or(Fault)?.parameter(name))
        })],
        &[("url_extract_parameter('http://a.com/?x=1&y=2', 'y')", "2")],
    ),
    Definition::new(
        "url_extract_path",
        "The path of a URL, decoded.",
        &[form("url VARCHAR -> VARCHAR", |input| of_url(input, |url| url.decoded(url.path)))],
        &[("url_extract_path('http://a.com/b/c?d')", "/b/c")],
    ),
    Definition::new(
        "url_extract_port",
        "The port of a URL; NULL if it names none.",
        &[form("url VARCHAR -> INT", |input| of_url(input, |url| Ok(url.port())))],
        &[("url_extract_port('http://a.com:8080/b')", "8080")],
    ),
    Definition::new(
        "url_extract_protocol",
        "The protocol of a URL; NULL if it names none.",
        &[form("url VARCHAR -> VARCHAR", |input| of_url(input, |url| Ok(url.scheme.map(str::to_owned))))],
        &[("url_extract_protocol('https://a.com')", "https")],
    ),
    Definition::new(
        "url_extract_query",
        "The query of a URL, decoded; NULL if it has none.",
        &[form("url VARCHAR -> VARCHAR", |input| of_url(input, |url| url.decoded(url.query)))],
        &[("url_extract_query('http://a.com/b?c=d#e')", "c=d")],
    ),
];

fn of_url<T: Made>(input: &Input<'_>, part: impl Fn(&Url<'_>) -> std::result::Result<Option<T>, Fault>) -> Result<ArrayRef> {
    input.map1::<Str, _>(|text| part(&Url::read(text).ok_or(Fault)?))
}

/// The parts of a URL as they are written.
#[derive(Debug, PartialEq, Eq)]
struct Url<'a> {
    scheme: Option<&'a str>,
    authority: Option<&'a str>,
    path: Option<&'a str>,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
}

impl<'a> Url<'a> {
    fn read(text: &'a str) -> Option<Self> {
        if !text.chars().all(may_stand) || !escapes_are_whole(text) {
            return None;
        }
        let (rest, fragment) = text.split_once('#').map_or((text, None), |(rest, fragment)| (rest, Some(fragment)));
        let colon = rest.find(':').filter(|at| rest.get(..*at).is_some_and(is_scheme));
        let (scheme, rest) = colon.and_then(|at| Some((Some(rest.get(..at)?), rest.get(at + 1..)?))).unwrap_or((None, rest));
        if scheme.is_some() && !rest.starts_with('/') {
            // As mailto:someone: nothing in it is a path or a query.
            return (!rest.is_empty()).then_some(Self { scheme, authority: None, path: None, query: None, fragment });
        }
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (authority, path) = match rest.strip_prefix("//") {
            Some(behind) => {
                let end = behind.find('/').unwrap_or(behind.len());
                (behind.get(..end).filter(|authority| !authority.is_empty()), behind.get(end..))
            }
            None => (None, Some(rest)),
        };
        let is_no_scheme = scheme.is_none() && path.is_some_and(|path| path.split('/').next().is_some_and(|first| first.contains(':')));
        (!is_no_scheme && !text.is_empty()).then_some(Self { scheme, authority, path, query, fragment })
    }

    fn host_and_port(&self) -> Option<(&'a str, Option<&'a str>)> {
        let authority = self.authority?;
        let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        if place.starts_with('[') {
            let end = place.find(']')? + 1;
            return Some((place.get(..end)?, place.get(end..)?.strip_prefix(':')));
        }
        Some(place.rsplit_once(':').map_or((place, None), |(host, port)| (host, Some(port))))
    }

    fn host(&self) -> Option<&'a str> {
        self.host_and_port().map(|(host, _)| host).filter(|host| !host.is_empty())
    }

    fn port(&self) -> Option<i32> {
        self.host_and_port()?.1?.parse().ok().filter(|port| *port >= 0)
    }

    fn decoded(&self, part: Option<&str>) -> std::result::Result<Option<String>, Fault> {
        part.map(|part| decoded(part, Plus::IsPlus).map(Cow::into_owned)).transpose()
    }

    fn parameter(&self, name: &str) -> std::result::Result<Option<String>, Fault> {
        for pair in self.query.unwrap_or_default().split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if decoded(key, Plus::IsPlus)? == name && (self.query.is_some()) {
                return Ok(Some(decoded(value, Plus::IsPlus)?.into_owned()));
            }
        }
        Ok(None)
    }
}

fn is_scheme(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic()) && letters.all(|one| one.is_ascii_alphanumeric() || "+-.".contains(one))
}

/// What a URL may contain; letters of other alphabets may stand as they are, as in Java.
fn may_stand(one: char) -> bool {
    !(one.is_ascii_control() || " \"<>\\^`{|}".contains(one) || (!one.is_ascii() && (one.is_whitespace() || one.is_control())))
}

fn escapes_are_whole(text: &str) -> bool {
    let mut parts = text.split('%');
    parts.next();
    parts.all(|behind| behind.len() >= 2 && behind.bytes().take(2).all(|digit| digit.is_ascii_hexdigit()))
}

/// What a plus is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    IsSpace,
    IsPlus,
}

/// With %XX as the bytes that they are; bytes that are no text become U+FFFD.
fn decoded(text: &str, plus: Plus) -> std::result::Result<Cow<'_, str>, Fault> {
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    if !escapes_are_whole(text) {
        return Err(Fault);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit =
                    || rest.next().and_then(|digit| char::from(digit).to_digit(16)).and_then(|digit| u8::try_from(digit).ok()).ok_or(Fault);
                bytes.push(digit()? * 16 + digit()?);
            }
            b'+' if plus == Plus::IsSpace => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    Ok(Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()))
}

fn encoded(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => made.push('+'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => made.push(char::from(byte)),
            other => made.push_str(&format!("%{other:02X}")),
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_cut_into_its_parts() {
        let url = Url::read("https://me:secret@[::1]:8080/a/b?x=1&flag&x=2#end").unwrap();
        assert_eq!(
            (url.scheme, url.host(), url.port(), url.path, url.fragment),
            (Some("https"), Some("[::1]"), Some(8080), Some("/a/b"), Some("end"))
        );
        assert_eq!(url.parameter("x"), Ok(Some("1".to_owned())));
        assert_eq!(url.parameter("flag"), Ok(Some(String::new())));
        assert_eq!(url.parameter("y"), Ok(None));
        let bare = Url::read("www.example.com").unwrap();
        assert_eq!((bare.scheme, bare.host(), bare.path), (None, None, Some("www.example.com")));
        assert_eq!(Url::read("mailto:me@example.com").unwrap().path, None);
        for wrong in ["", "http://a b", "http://a/%zz", "http://a/%e", "1a:b", "http:"] {
            assert_eq!(Url::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn decoding_undoes_encoding() {
        for text in ["", "a b", "äöü&=?/%+", "😀", "~*.-_"] {
            assert_eq!(decoded(&encoded(text), Plus::IsSpace).as_deref(), Ok(text), "{text}");
        }
        assert_eq!(decoded("%", Plus::IsSpace), Err(Fault));
        assert_eq!(decoded("%ff", Plus::IsSpace).as_deref(), Ok("\u{fffd}"));
    }
}
