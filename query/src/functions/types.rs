//! The Arrow types of our SQL's types, as functions take and give them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};

pub(crate) use crate::catalog::types::{array_of as list_of, map_of, map_parts, struct_of, time_type as time, timestamp_type as timestamp};

/// Most digits of a DECIMAL.
pub(crate) const MAX_DIGITS: u8 = 38;

/// The field of an array's elements.
pub(crate) fn element_field(element: DataType) -> FieldRef {
    Arc::new(Field::new("item", element, true))
}

/// The field of a map's entries.
pub(crate) fn entries_field(key: DataType, value: DataType) -> FieldRef {
    match map_of(key, value) {
        DataType::Map(entries, _) => entries,
        // There is no other.
        other => element_field(other),
    }
}

/// The type of ours in which a value of any Arrow type is taken, or the type itself if there is none.
pub(crate) fn canonical(given: &DataType) -> DataType {
    match given {
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 | DataType::Float32 => DataType::Float64,
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => DataType::Decimal128(*precision, *scale),
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => time(),
        DataType::Timestamp(..) => timestamp(),
        DataType::Dictionary(_, value) => canonical(value),
        DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
            list_of(canonical(element.data_type()))
        }
        DataType::Map(..) => match map_parts(given) {
            Some((key, value)) => map_of(canonical(key), canonical(value)),
            None => given.clone(),
        },
        DataType::Struct(fields) => struct_of(fields.iter().map(|field| (field.name().clone(), canonical(field.data_type())))),
        other => other.clone(),
    }
}

/// The narrowest type that holds all values of both, if there is one.
pub(crate) fn common(left: &DataType, right: &DataType) -> Option<DataType> {
    use DataType::{Decimal128, Float64, Int32, Int64, List, Map, Null, Struct};
    Some(match (left, right) {
        (left, right) if left == right => left.clone(),
        (Null, other) | (other, Null) => other.clone(),
        (Int32, Int64) | (Int64, Int32) => Int64,
        (Float64, Int32 | Int64 | Decimal128(..)) | (Int32 | Int64 | Decimal128(..), Float64) => Float64,
        (Int32, decimal @ Decimal128(..)) | (decimal @ Decimal128(..), Int32) => wider_decimal(&Decimal128(10, 0), decimal)?,
        (Int64, decimal @ Decimal128(..)) | (decimal @ Decimal128(..), Int64) => wider_decimal(&Decimal128(19, 0), decimal)?,
        (Decimal128(..), Decimal128(..)) => wider_decimal(left, right)?,
        (List(left), List(right)) => list_of(common(left.data_type(), right.data_type())?),
        (Map(..), Map(..)) => {
            let ((left_key, left_value), (right_key, right_value)) = (map_parts(left)?, map_parts(right)?);
            map_of(common(left_key, right_key)?, common(left_value, right_value)?)
        }
        // The fields of both, those of one name in one type.
        (Struct(left), Struct(right)) => {
            let mut fields: Vec<(String, DataType)> = Vec::with_capacity(left.len());
            for field in left {
                let given = match right.find(field.name()) {
                    Some((_, other)) => common(field.data_type(), other.data_type())?,
                    None => field.data_type().clone(),
                };
                fields.push((field.name().clone(), given));
            }
            let further = right.iter().filter(|field| left.find(field.name()).is_none());
            fields.extend(further.map(|field| (field.name().clone(), field.data_type().clone())));
            struct_of(fields)
        }
        _ => return None,
    })
}

/// The narrowest DECIMAL that holds both; none if that has more than 38 digits.
pub(crate) fn wider_decimal(left: &DataType, right: &DataType) -> Option<DataType> {
    let (DataType::Decimal128(left_digits, left_scale), DataType::Decimal128(right_digits, right_scale)) = (left, right) else {
        return None;
    };
    let scale = (*left_scale).max(*right_scale);
    let whole = (i16::from(*left_digits) - i16::from(*left_scale)).max(i16::from(*right_digits) - i16::from(*right_scale));
    let digits = u8::try_from(whole + i16::from(scale)).ok()?;
    (digits <= MAX_DIGITS).then_some(DataType::Decimal128(digits, scale))
}
