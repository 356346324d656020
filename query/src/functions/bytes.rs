//! Functions of bytes, and of texts that stand for bytes.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{
    definition::{Definition, form},
    input::{Bytes, Fault, Str},
    text::hex,
};

/// Base64 as Java reads and writes it: padding is written, and not missed.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new(
        "bigint_from_bytes",
        "The BIGINT that eight bytes are, the highest first unless told 'LITTLE_ENDIAN'.",
        &[
            form("bytes BYTES -> BIGINT", |input| input.map1::<Bytes, _>(|bytes| Order::Big.read(bytes).map(i64::from_be_bytes))),
            form("bytes BYTES, order VARCHAR -> BIGINT", |input| {
                input.map2::<Bytes, Str, _>(|bytes, order| Order::named(order)?.read(bytes).map(i64::from_be_bytes))
            }),
        ],
        &[("bigint_from_bytes(to_bytes('000000000000000A', 'hex'))", "10")],
    ),
    Definition::new(
        "double_from_bytes",
        "The DOUBLE that eight bytes are, the highest first unless told 'LITTLE_ENDIAN'.",
        &[
            form("bytes BYTES -> DOUBLE", |input| input.map1::<Bytes, _>(|bytes| Order::Big.read(bytes).map(f64::from_be_bytes))),
            form("bytes BYTES, order VARCHAR -> DOUBLE", |input| {
                input.map2::<Bytes, Str, _>(|bytes, order| Order::named(order)?.read(bytes).map(f64::from_be_bytes))
            }),
        ],
        &[("double_from_bytes(to_bytes('3FF8000000000000', 'hex'))", "1.5")],
    ),
    Definition::new(
        "encode",
        "A text of bytes in one encoding as a text in another: 'hex', 'utf8', 'ascii' or 'base64'.",
        &[form("text VARCHAR, from VARCHAR, to VARCHAR -> VARCHAR", |input| {
            input.map3::<Str, Str, Str, _>(|text, from, to| {
                let (from, to) = (Encoding::named(from)?, Encoding::named(to)?);
                Ok::<String, Fault>(to.written(&from.read(text)?, Digits::Small))
            })
        })],
        &[("encode('4578', 'hex', 'utf8')", "Ex")],
    )
    .only_ksql(),
    Definition::new(
        "from_bytes",
        "Bytes as a text: 'hex', 'utf8', 'ascii' or 'base64'.",
        &[form("bytes BYTES, encoding VARCHAR -> VARCHAR", |input| {
            input.map2::<Bytes, Str, _>(|bytes, encoding| Ok::<String, Fault>(Encoding::named(encoding)?.written(bytes, Digits::Capital)))
        })],
        &[("from_bytes(to_bytes('ab', 'utf8'), 'hex')", "6162")],
    ),
    Definition::new(
        "int_from_bytes",
        "The INT that four bytes are, the highest first unless told 'LITTLE_ENDIAN'.",
        &[
            form("bytes BYTES -> INT", |input| input.map1::<Bytes, _>(|bytes| Order::Big.read(bytes).map(i32::from_be_bytes))),
            form("bytes BYTES, order VARCHAR -> INT", |input| {
                input.map2::<Bytes, Str, _>(|bytes, order| Order::named(order)?.read(bytes).map(i32::from_be_bytes))
            }),
        ],
        &[("int_from_bytes(to_bytes('0A000000', 'hex'), 'LITTLE_ENDIAN')", "10")],
    ),
    Definition::new(
        "to_bytes",
        "The bytes that a text stands for: 'hex', 'utf8', 'ascii' or 'base64'.",
        &[form("text VARCHAR, encoding VARCHAR -> BYTES", |input| {
            input.map2::<Str, Str, _>(|text, encoding| Encoding::named(encoding)?.read(text))
        })],
        &[("to_bytes('4a', 'hex')", "4a")],
    ),
];

/// Which byte of a number comes first.
#[derive(Clone, Copy)]
enum Order {
    Big,
    Little,
}

impl Order {
    fn named(name: &str) -> Result<Self, Fault> {
        match name.to_ascii_uppercase().as_str() {
            "BIG_ENDIAN" => Ok(Self::Big),
            "LITTLE_ENDIAN" => Ok(Self::Little),
            _ => Err(Fault),
        }
    }

    /// The bytes of a number, the highest first.
    fn read<const N: usize>(self, bytes: &[u8]) -> Result<[u8; N], Fault> {
        let mut number: [u8; N] = bytes.try_into().map_err(|_| Fault)?;
        if matches!(self, Self::Little) {
            number.reverse();
        }
        Ok(number)
    }
}

/// What a text of bytes looks like.
#[derive(Clone, Copy)]
enum Encoding {
    Hex,
    Utf8,
    Ascii,
    Base64,
}

/// Letters of hexadecimal digits.
#[derive(Clone, Copy)]
enum Digits {
    Small,
    Capital,
}

impl Encoding {
    fn named(name: &str) -> Result<Self, Fault> {
        match name.to_ascii_lowercase().as_str() {
            "hex" => Ok(Self::Hex),
            "utf8" => Ok(Self::Utf8),
            "ascii" => Ok(Self::Ascii),
            "base64" => Ok(Self::Base64),
            _ => Err(Fault),
        }
    }

    fn read(self, text: &str) -> Result<Vec<u8>, Fault> {
        match self {
            Self::Hex => from_hex(text).ok_or(Fault),
            Self::Utf8 => Ok(text.as_bytes().to_vec()),
            Self::Ascii => Ok(text.chars().map(|one| u8::try_from(one).ok().filter(u8::is_ascii).unwrap_or(b'?')).collect()),
            Self::Base64 => BASE64.decode(text).map_err(|_| Fault),
        }
    }

    fn written(self, bytes: &[u8], digits: Digits) -> String {
        match (self, digits) {
            (Self::Hex, Digits::Small) => hex(bytes),
            (Self::Hex, Digits::Capital) => hex(bytes).to_uppercase(),
            (Self::Utf8, _) => String::from_utf8_lossy(bytes).into_owned(),
            (Self::Ascii, _) => {
                bytes.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { char::REPLACEMENT_CHARACTER }).collect()
            }
            (Self::Base64, _) => BASE64.encode(bytes),
        }
    }
}

/// `4a4b`, `0x4a4b` (where the first digit may be missing) or `X'4a4b'`.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let padded;
    let digits = if let Some(digits) = text.strip_prefix("0x") {
        padded = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits.to_owned() };
        padded.as_str()
    } else if let Some(quoted) = text.strip_prefix(['x', 'X']) {
        quoted.strip_prefix('\'')?.strip_suffix('\'')?
    } else {
        text
    };
    if digits.len() % 2 == 1 {
        return None;
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? * 16 + digit(low)?),
        _ => None,
    };
    digits.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_are_read_in_three_ways() {
        for (text, bytes) in [("4a4B", &b"JK"[..]), ("0x4a", b"J"), ("0x5", b"\x05"), ("x'4A'", b"J"), ("X''", b""), ("", b"")] {
            assert_eq!(from_hex(text).as_deref(), Some(bytes), "{text}");
        }
        for wrong in ["5", "0x0x", "X'", "x'4a", "x'5'", "4ä", "zz", "x'"] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_an_encoding_cannot_say_is_replaced() {
        assert_eq!(Encoding::Ascii.read("aé😀"), Ok(b"a??".to_vec()));
        assert_eq!(Encoding::Ascii.written(&[0x41, 0xff], Digits::Small), "A\u{fffd}");
        assert_eq!(Encoding::Base64.read("YQ"), Ok(b"a".to_vec()));
        assert_eq!(Encoding::Base64.read("Y"), Err(Fault));
        assert_eq!(Order::Little.read::<4>(&[1, 0, 0, 0]).map(i32::from_be_bytes), Ok(1));
        assert_eq!(Order::Big.read::<4>(&[1, 0, 0]), Err(Fault));
    }
}
