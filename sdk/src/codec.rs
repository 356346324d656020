//! A domain event as a type name and JSON, and back: `Deposited { cents: 5 }` is type `Deposited`, data `{"cents":5}`.
//!
//! Works on any enum in serde's default form; `#[serde(rename = "...")]` on a variant fixes the type's name for ever,
//! whatever the code calls it later. Called by [`crate::decider`] and by whoever reads typed events. What is encoded decodes to
//! an equal value; what is not an enum is refused rather than given a name by chance.

use std::fmt;

use bytes::Bytes;
use serde::{
    Serialize,
    de::{self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, VariantAccess, Visitor, value::StrDeserializer},
    ser::{self, Impossible, SerializeStructVariant, SerializeTupleVariant},
};
use serde_json::{Map, Value};

/// Why an event could not be turned into bytes or back.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(String);

impl CodecError {
    /// Says that nothing is left to be decoded.
    pub(crate) fn redacted() -> Self {
        Self("its data was redacted".to_owned())
    }

    /// Says where it happened.
    pub(crate) fn within(self, place: &str) -> Self {
        Self(format!("{place}: {}", self.0))
    }
}

/// The type name and the JSON of an event.
///
/// # Errors
/// If the event is not an enum in serde's default form, or holds what JSON cannot say (a map with keys that are no text).
pub fn encode<E: Serialize>(event: &E) -> Result<(String, Bytes), CodecError> {
    event.serialize(VariantSerializer)
}

/// The event of type `kind` whose JSON is `data`.
///
/// # Errors
/// If the enum has no such variant, or the JSON does not fit it; the message names the type.
pub fn decode<E: DeserializeOwned>(kind: &str, data: &[u8]) -> Result<E, CodecError> {
    E::deserialize(Tagged { kind, data }).map_err(|error| CodecError(format!("event of type {kind:?}: {error}")))
}

impl ser::Error for CodecError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl de::Error for CodecError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl From<serde_json::Error> for CodecError {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

type Encoded = (String, Bytes);

fn json<T: Serialize + ?Sized>(variant: &str, data: &T) -> Result<Encoded, CodecError> {
    Ok((variant.to_owned(), serde_json::to_vec(data)?.into()))
}

fn not_an_enum<T>(what: &str) -> Result<T, CodecError> {
    Err(CodecError(format!(
        "an event must be an enum without #[serde(tag)] or #[serde(untagged)], its variant is the event's type; this one serializes as {what}"
    )))
}

/// Takes an enum's variant apart; everything else is refused.
struct VariantSerializer;

macro_rules! refuse {
    ($($method:ident($type:ty) $what:literal;)*) => {$(
        fn $method(self, _: $type) -> Result<Encoded, CodecError> {
            not_an_enum($what)
        }
    )*};
}

impl ser::Serializer for VariantSerializer {
    type Ok = Encoded;
    type Error = CodecError;
    type SerializeSeq = Impossible<Encoded, CodecError>;
    type SerializeTuple = Impossible<Encoded, CodecError>;
    type SerializeTupleStruct = Impossible<Encoded, CodecError>;
    type SerializeTupleVariant = Fields<Vec<Value>>;
    type SerializeMap = Impossible<Encoded, CodecError>;
    type SerializeStruct = Impossible<Encoded, CodecError>;
    type SerializeStructVariant = Fields<Map<String, Value>>;

    refuse! {
        serialize_bool(bool) "a boolean";
        serialize_i8(i8) "a number";
        serialize_i16(i16) "a number";
        serialize_i32(i32) "a number";
        serialize_i64(i64) "a number";
        serialize_u8(u8) "a number";
        serialize_u16(u16) "a number";
        serialize_u32(u32) "a number";
        serialize_u64(u64) "a number";
        serialize_f32(f32) "a number";
        serialize_f64(f64) "a number";
        serialize_char(char) "text";
        serialize_str(&str) "text";
        serialize_bytes(&[u8]) "bytes";
        serialize_unit_struct(&'static str) "a unit struct";
    }

    fn serialize_unit(self) -> Result<Encoded, CodecError> {
        not_an_enum("nothing")
    }

    fn serialize_none(self) -> Result<Encoded, CodecError> {
        not_an_enum("an option")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Encoded, CodecError> {
        not_an_enum("an option")
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Encoded, CodecError> {
        value.serialize(self)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Encoded, CodecError> {
        // An object, not null: SQL reads the payload's members as columns, and here there are none.
        Ok((variant.to_owned(), Bytes::from_static(b"{}")))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Encoded, CodecError> {
        json(variant, value)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, CodecError> {
        Ok(Fields { variant, fields: Vec::with_capacity(len) })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, CodecError> {
        Ok(Fields { variant, fields: Map::with_capacity(len) })
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, CodecError> {
        not_an_enum("a sequence")
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, CodecError> {
        not_an_enum("a tuple")
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, CodecError> {
        not_an_enum("a tuple")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, CodecError> {
        not_an_enum("a map")
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, CodecError> {
        not_an_enum("a struct")
    }
}

/// A variant's fields as they come.
struct Fields<T> {
    variant: &'static str,
    fields: T,
}

impl SerializeTupleVariant for Fields<Vec<Value>> {
    type Ok = Encoded;
    type Error = CodecError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.fields.push(serde_json::to_value(value)?);
        Ok(())
    }

    fn end(self) -> Result<Encoded, CodecError> {
        json(self.variant, &self.fields)
    }
}

impl SerializeStructVariant for Fields<Map<String, Value>> {
    type Ok = Encoded;
    type Error = CodecError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), CodecError> {
        self.fields.insert(key.to_owned(), serde_json::to_value(value)?);
        Ok(())
    }

    fn end(self) -> Result<Encoded, CodecError> {
        json(self.variant, &self.fields)
    }
}

/// A type name and JSON that look like an enum to serde.
struct Tagged<'a> {
    kind: &'a str,
    data: &'a [u8],
}

impl<'de> de::Deserializer<'de> for Tagged<'_> {
    type Error = CodecError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_enum(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct
        map struct enum identifier ignored_any
    }
}

impl<'de, 'a> EnumAccess<'de> for Tagged<'a> {
    type Error = CodecError;
    type Variant = Data<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Data<'a>), CodecError> {
        let name: StrDeserializer<'_, CodecError> = self.kind.into_deserializer();
        Ok((seed.deserialize(name)?, Data(self.data)))
    }
}

/// The JSON of the variant that was found.
struct Data<'a>(&'a [u8]);

impl<'de> VariantAccess<'de> for Data<'_> {
    type Error = CodecError;

    fn unit_variant(self) -> Result<(), CodecError> {
        serde_json::from_slice::<de::IgnoredAny>(self.0)?;
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, CodecError> {
        let value: Value = serde_json::from_slice(self.0)?;
        Ok(seed.deserialize(value)?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, CodecError> {
        let value: Value = serde_json::from_slice(self.0)?;
        Ok(de::Deserializer::deserialize_seq(value, visitor)?)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, CodecError> {
        let value: Value = serde_json::from_slice(self.0)?;
        Ok(de::Deserializer::deserialize_map(value, visitor)?)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Opening {
        owner: String,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Happened {
        Opened(Opening),
        #[serde(rename = "bank.Deposited.v1")]
        Deposited {
            cents: u64,
            note: Option<String>,
        },
        Moved(u8, String),
        Closed,
    }

    fn round_trip(event: &Happened, kind: &str, data: &str) {
        let (encoded_kind, encoded) = encode(event).unwrap();
        assert_eq!((encoded_kind.as_str(), std::str::from_utf8(&encoded).unwrap()), (kind, data));
        assert_eq!(&decode::<Happened>(kind, &encoded).unwrap(), event);
    }

    #[test]
    fn every_form_of_variant_round_trips() {
        round_trip(&Happened::Opened(Opening { owner: "Ada".into() }), "Opened", r#"{"owner":"Ada"}"#);
        round_trip(
            &Happened::Deposited { cents: u64::MAX, note: None },
            "bank.Deposited.v1",
            r#"{"cents":18446744073709551615,"note":null}"#,
        );
        round_trip(&Happened::Moved(1, "x".into()), "Moved", r#"[1,"x"]"#);
        round_trip(&Happened::Closed, "Closed", "{}");
    }

    #[test]
    fn an_unknown_type_is_named_with_those_that_are_known() {
        let error = decode::<Happened>("Burnt", b"{}").unwrap_err().to_string();
        assert!(error.contains("Burnt") && error.contains("bank.Deposited.v1"), "{error}");
    }

    #[test]
    fn payload_that_does_not_fit_names_the_type() {
        for data in [&b"{}"[..], b"[1]", b"nonsense", b"", b"{\"cents\":-1}", b"{\"cents\":1} x"] {
            let error = decode::<Happened>("bank.Deposited.v1", data).unwrap_err().to_string();
            assert!(error.starts_with("event of type \"bank.Deposited.v1\": "), "{error}");
        }
    }

    #[test]
    fn what_is_no_enum_is_refused() {
        #[derive(Serialize)]
        #[serde(tag = "type")]
        enum Internal {
            A { b: u8 },
        }
        for error in
            [encode(&Opening { owner: "x".into() }), encode(&"text"), encode(&Some(Happened::Closed)), encode(&Internal::A { b: 1 })]
        {
            assert!(error.unwrap_err().to_string().contains("must be an enum"));
        }
    }
}
