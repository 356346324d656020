//! Keys and values of cases as the bytes of records, and back.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use foldlog_query::{
    arrow::datatypes::DataType,
    catalog::{Column, Source},
};

use crate::json::Json;

/// How one side of a record is written.
pub struct Side<'a> {
    format: String,
    columns: Vec<&'a Column>,
}

impl<'a> Side<'a> {
    pub fn key(source: &'a Source) -> Self {
        Self { format: source.key_format.as_str().to_owned(), columns: source.columns.iter().filter(|column| column.key).collect() }
    }

    pub fn value(source: &'a Source) -> Self {
        let is_written = |(place, column): &(usize, &Column)| !column.key && source.header(*place).is_none();
        let columns = source.columns.iter().enumerate().filter(is_written).map(|(_, column)| column).collect();
        Self { format: source.value_format.as_str().to_owned(), columns }
    }

    /// The type by which values are compared.
    pub fn data_type(&self, is_object: bool) -> Option<DataType> {
        if self.columns.len() == 1 && !is_object {
            return self.columns.first().map(|column| column.data_type.clone());
        }
        let fields =
            self.columns.iter().map(|column| foldlog_query::arrow::datatypes::Field::new(&column.name, column.data_type.clone(), true));
        Some(DataType::Struct(fields.collect()))
    }

    pub fn encode(&self, value: &Json) -> Option<Bytes> {
        if value.is_null() {
            return None;
        }
        let text = value.to_string();
        Some(match self.format.as_str() {
            "kafka" => match (self.columns.first().map(|column| &column.data_type), value) {
                (Some(DataType::Int32), Json::Number(number)) => {
                    number.parse::<i32>().map_or(text.into(), |one| one.to_be_bytes().to_vec().into())
                }
                (Some(DataType::Int64), Json::Number(number)) => {
                    number.parse::<i64>().map_or(text.into(), |one| one.to_be_bytes().to_vec().into())
                }
                (Some(DataType::Float64), Json::Number(number)) => {
                    number.parse::<f64>().map_or(text.into(), |one| one.to_be_bytes().to_vec().into())
                }
                (Some(DataType::Binary), Json::Text(base64)) => BASE64_STANDARD.decode(base64).map_or(text.into(), Bytes::from),
                (_, Json::Text(plain)) => plain.clone().into(),
                _ => text.into(),
            },
            "json" => text.into(),
            _ => match value {
                Json::Text(plain) => plain.clone().into(),
                _ => text.into(),
            },
        })
    }

    /// What bytes say; a text if they are not what the format promises.
    pub fn decode(&self, bytes: Option<&[u8]>) -> Json {
        let Some(bytes) = bytes else { return Json::Null };
        let text = || Json::Text(String::from_utf8_lossy(bytes).into_owned());
        match self.format.as_str() {
            "kafka" => match (self.columns.first().map(|column| &column.data_type), bytes.len()) {
                (Some(DataType::Int32), 4) => Json::Number(i32::from_be_bytes(bytes.try_into().unwrap()).to_string()),
                (Some(DataType::Int64), 8) => Json::Number(i64::from_be_bytes(bytes.try_into().unwrap()).to_string()),
                (Some(DataType::Float64), 8) => Json::Number(format!("{:?}", f64::from_be_bytes(bytes.try_into().unwrap()))),
                (Some(DataType::Binary), _) => Json::Text(BASE64_STANDARD.encode(bytes)),
                _ => text(),
            },
            "json" => std::str::from_utf8(bytes).ok().and_then(|text| Json::parse(text).ok()).unwrap_or_else(text),
            _ => text(),
        }
    }
}

/// The bytes of a side that no stream or table is declared over.
pub fn undeclared(value: &Json) -> Option<Bytes> {
    match value {
        Json::Null => None,
        Json::Text(text) => Some(text.clone().into()),
        other => Some(other.to_string().into()),
    }
}
